//! Which names of repositories, revisions and files are accepted. A name comes from a user or a hub and becomes part of
//! a URL or of a path on the volume, so it must not be able to lead anywhere else.

use crate::error::Error;

/// Bytes of a path inside a repository.
const MAX_PATH: usize = 1_024;

/// Owner and name of `OWNER/NAME`.
pub(crate) fn split_repo(repo: &str) -> Result<(&str, &str), Error> {
    let word = |text: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !text.is_empty() && text.len() <= 96 && text.chars().all(allowed) && !text.starts_with('.')
    };
    let parts = repo
        .split_once('/')
        .filter(|(owner, name)| word(owner) && word(name));
    parts.ok_or_else(|| Error::BadName {
        path: repo.to_owned(),
        what: "repository, which is OWNER/NAME",
    })
}

/// A branch, tag or commit id that stays one URL segment or several harmless ones.
pub(crate) fn check_revision(revision: &str) -> Result<(), Error> {
    let good = !revision.is_empty()
        && revision.len() <= 200
        && revision.chars().all(|c| c.is_ascii_graphic());
    let good = good
        && !revision
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."));
    good.then_some(()).ok_or_else(|| Error::BadName {
        path: revision.to_owned(),
        what: "revision",
    })
}

/// Whether a repository path names a file below the root and none of ours.
pub(crate) fn is_safe_path(path: &str) -> bool {
    let usable = |part: &str| {
        !matches!(part, "" | "." | ".." | ".kimi") && !part.contains(['\\', '\0', '\n', '\r'])
    };
    path.len() <= MAX_PATH && path.split('/').all(usable)
}

/// Whether `text` is exactly so many lower-case hex digits.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_volume_or_the_route_are_refused() {
        for bad in [
            "../x.gguf",
            "/etc/passwd",
            "a//b",
            "a/../b",
            ".kimi/x",
            "a/.",
            "a\\b",
            "a\nb",
            "",
        ] {
            assert!(!is_safe_path(bad), "{bad:?}");
        }
        assert!(is_safe_path("Q4_K_M/Kimi #1.gguf"));
        for bad in ["kimi", "a/b/c", "../x", "a/..", "a b/c", "/x", "x/"] {
            assert!(split_repo(bad).is_err(), "{bad:?}");
        }
        assert!(check_revision("refs/pr/1").is_ok() && check_revision("a/../b").is_err());
    }
}
