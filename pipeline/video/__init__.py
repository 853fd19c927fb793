"""A video file -> blocks of RGB frames, and frames -> an MP4 file."""
