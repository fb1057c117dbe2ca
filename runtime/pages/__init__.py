"""Write HTML pages: search results, comparisons, pairs, contact sheets, the map."""
