//! Hub metadata and a resumable, verified, parallel ranged download.
