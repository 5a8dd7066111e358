//! Tokens to text as they come: holds back the bytes of an unfinished character, so that no reader
//! ever sees half of one. It must not know stop strings or requests.

/// Decodes one stream of tokens.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    /// An unfinished character: at most 3 bytes between calls.
    held: Vec<u8>,
}

impl StreamDecoder {
    /// Adds a token's bytes and returns the characters that are now whole. Bytes that can never
    /// become a character come out as U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            rest += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_end = rest + invalid.len() == self.held.len();
            if at_end && is_unfinished(invalid) {
                break;
            }
            if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                rest += invalid.len();
            }
        }
        self.held.drain(..rest);
        text
    }

    /// What is left at the end of the stream: U+FFFD if a character stayed unfinished.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

/// Whether more bytes could make this a character.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_out_whole_however_they_are_cut() {
        let text = "naïve 你好 🙂 é";
        for step in 1..5 {
            let mut decoder = StreamDecoder::default();
            let mut out = String::new();
            for part in text.as_bytes().chunks(step) {
                out.push_str(&decoder.push(part));
            }
            assert_eq!(out, text);
            assert_eq!(decoder.finish(), "");
        }
    }

    #[test]
    fn hopeless_bytes_are_replaced_at_once() {
        let mut decoder = StreamDecoder::default();
        assert_eq!(decoder.push(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(decoder.push(b"\xe4\xbd"), "");
        assert_eq!(decoder.push(b"x"), "\u{fffd}x");
        assert_eq!(decoder.push(b"\xe4"), "");
        assert_eq!(decoder.finish(), "\u{fffd}");
        assert_eq!(decoder.finish(), "");
    }
}
