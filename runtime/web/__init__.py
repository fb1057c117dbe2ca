"""The pages of the server: templates filled in by the server, and plain ES modules, without a build step."""
