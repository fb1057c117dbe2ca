// Load the page again while the server works for it, but not while the user reads another tab.
setInterval(() => { if (!document.hidden) location.reload(); }, 2000);
