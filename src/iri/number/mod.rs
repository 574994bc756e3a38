//! Number families: the many spellings of one telephone number, and the one that stands for all. Pure.
