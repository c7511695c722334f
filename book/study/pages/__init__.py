"""What single pages of the book show: tables and sentences. Imports no torch."""
