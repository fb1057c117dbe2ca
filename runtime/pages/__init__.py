"""HTML pages for people: answers, comparisons, pairs, contact sheets, the map."""
