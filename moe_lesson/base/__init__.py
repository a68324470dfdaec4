"""What every room uses: errors, files, text as bytes, seeds."""
