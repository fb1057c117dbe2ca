"""Jobs that embed photos in processes of their own, which outlive the server and go on after a crash."""
