"""The REST service behind `facemill serve`. It needs the extra `server`: FastAPI, uvicorn, prometheus-client."""
