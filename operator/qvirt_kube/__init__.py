"""The one door to the Kubernetes API server: plain JSON objects in and out, deadlines, errors with their reason."""
