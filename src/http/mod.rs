//! A small blocking HTTP edge.
