//! Documentation only.
