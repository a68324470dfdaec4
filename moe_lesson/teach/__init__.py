"""Teaching: what a notebook calls. Lessons with predictions and claims, checks of exercises, figures."""
