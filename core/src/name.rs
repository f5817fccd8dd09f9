//! Subjects, patterns and names: parsed once at the edge, typed inside.
//!
//! Subjects follow the NATS grammar: tokens separated by dots; in a pattern `*` stands for one token
//! and `>` for one or more at the end. A token is any text without dots, white space, control
//! characters, `*` or `>`; there are at most [`TOKENS_MAX`]. Subjects that start with `$` belong to FlowMesh itself: anyone may
//! subscribe to them, only the mesh publishes them.
#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};
use std::{fmt, sync::Arc};

/// The longest subject, pattern or name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// The most tokens a subject or pattern has.
///
/// What a subscription takes in the host's table grows with them: the 65,536 of one session, as long as can
/// be and nothing in common, take 150 MiB.
pub const TOKENS_MAX: usize = 32;

macro_rules! text_type {
    ($type:ident, $doc:literal, $check:path, $operation:literal) => {
        #[doc = $doc]
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks `text` and keeps it.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidArgument`], naming the text, the rule it breaks and the limit.
            pub fn parse(text: &str) -> Result<Self> {
                $check(text, $operation)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_type!(Subject, "Where an event is published: `orders.created`.", check_subject, "subject.parse");
text_type!(Pattern, "What a subscriber asks for: `orders.*`, `logs.>`.", check_pattern, "pattern.parse");
text_type!(
    Name,
    "A service, instance or queue group: letters, digits, `_`, `-` and dots.",
    check_name,
    "name.parse"
);

/// Checks a subject without keeping it: the hot path of publish.
pub fn check_subject(text: &str, operation: &'static str) -> Result<()> {
    check_tokens(text, operation, "subject", false)
}

/// Checks a subject that a user publishes: one of the mesh's own (`$…`) is refused.
pub fn check_publishable(text: &str, operation: &'static str) -> Result<()> {
    check_subject(text, operation)?;
    if text.starts_with('$') {
        return Err(invalid(operation, "subject", text, "subjects that start with $ belong to FlowMesh"));
    }
    Ok(())
}

fn check_pattern(text: &str, operation: &'static str) -> Result<()> {
    check_tokens(text, operation, "pattern", true)
}

fn check_name(text: &str, operation: &'static str) -> Result<()> {
    check_length(text, operation, "name")?;
    if let Some(found) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.')) {
        return Err(invalid(operation, "name", text, "allowed are letters, digits, _, - and .")
            .with("found", format!("{found:?}")));
    }
    if text.split('.').any(str::is_empty) {
        return Err(invalid(operation, "name", text, "a token between dots is empty"));
    }
    Ok(())
}

fn check_length(text: &str, operation: &'static str, what: &'static str) -> Result<()> {
    if text.is_empty() {
        return Err(invalid(operation, what, text, "it is empty"));
    }
    if text.len() > NAME_BYTES_MAX {
        let shown: String = text.chars().take(32).collect();
        return Err(invalid(operation, what, &format!("{shown}…"), "it is too long")
            .with("bytes", text.len())
            .with("limit_bytes", NAME_BYTES_MAX));
    }
    Ok(())
}

fn check_tokens(text: &str, operation: &'static str, what: &'static str, wildcards: bool) -> Result<()> {
    check_length(text, operation, what)?;
    // Plain text, by far the commonest: one pass over the bytes decides.
    let mut previous = b'.';
    let mut plain = true;
    let mut dots = 0;
    for &byte in text.as_bytes() {
        dots += usize::from(byte == b'.');
        plain &=
            byte.is_ascii_graphic() && byte != b'*' && byte != b'>' && !(byte == b'.' && previous == b'.');
        previous = byte;
    }
    if dots >= TOKENS_MAX {
        return Err(invalid(operation, what, text, "it has too many tokens between dots")
            .with("tokens", dots + 1)
            .with("limit_tokens", TOKENS_MAX));
    }
    if plain && previous != b'.' {
        return Ok(());
    }
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        let last = tokens.peek().is_none();
        if token.is_empty() {
            return Err(invalid(operation, what, text, "a token between dots is empty"));
        }
        if let Some(found) = token.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(invalid(operation, what, text, "white space and control characters are not allowed")
                .with("found", format!("{found:?}")));
        }
        if token.contains(['*', '>']) {
            if !wildcards {
                return Err(invalid(operation, what, text, "* and > are for patterns only"));
            }
            if token.len() > 1 {
                return Err(invalid(operation, what, text, "* and > stand for whole tokens"));
            }
            if token == ">" && !last {
                return Err(invalid(operation, what, text, "> stands only at the end"));
            }
        }
    }
    Ok(())
}

fn invalid(operation: &'static str, what: &'static str, text: &str, rule: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, operation).with(what, format!("{text:?}")).with("rule", rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects() {
        for good in ["a", "orders.created", "a.b.c", "$queue.mail.done", "größe.x", "a-b_c.1"] {
            assert_eq!(Subject::parse(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(256);
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\n", "a.*", ">", "a.>", "a\u{a0}b", &long] {
            assert_eq!(Subject::parse(bad).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
        assert_eq!(Subject::parse(&long).unwrap_err().get("limit_bytes"), Some("255"));
        assert!(check_publishable("$sys.x", "t").is_err());
    }

    #[test]
    fn at_most_32_tokens() {
        let most = ["a"; TOKENS_MAX].join(".");
        Subject::parse(&most).unwrap();
        Pattern::parse(&most.replace('a', "*")).unwrap();
        for (kind, last) in [("subject", "a"), ("pattern", ">")] {
            let text = format!("{most}.{last}");
            let error =
                if kind == "subject" { Subject::parse(&text).err() } else { Pattern::parse(&text).err() };
            let error = error.unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert_eq!((error.get("tokens"), error.get("limit_tokens")), (Some("33"), Some("32")), "{kind}");
            assert!(error.get(kind).is_some_and(|shown| shown.contains(&text)), "{kind}");
        }
    }

    #[test]
    fn patterns() {
        for good in ["*", ">", "a.*", "*.b", "a.>", "a.*.c.>", "a.b"] {
            Pattern::parse(good).unwrap();
        }
        for bad in ["a.>.b", "a*", "a.b>", ">.a", "**", "", "a..>"] {
            assert_eq!(Pattern::parse(bad).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn names() {
        for good in ["images.resize", "a", "A-1_b"] {
            Name::parse(good).unwrap();
        }
        for bad in ["", "a b", "a/b", ".a", "a..b", "ü", "*"] {
            assert_eq!(Name::parse(bad).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
    }
}
