"""What people look at: film strips of what a network sees, and the templates of pages."""
