//! A position in the header's bytes that tells "read more" from "truncated file" and checks lengths before use.
//! It must not know GGUF's tables, only its primitive encodings.

use crate::error::Error;
use crate::limits;

pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    file_len: Option<u64>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], file_len: Option<u64>) -> Cursor<'a> {
        Cursor {
            bytes,
            position: 0,
            file_len,
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position as u64
    }

    /// Bytes of the prefix not yet read.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `count` bytes; `what` names what they hold, for messages.
    pub(crate) fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], Error> {
        let end = self.position().saturating_add(count);
        if end > limits::HEADER_BYTES {
            return Err(Error::Limit {
                what: "the length of the header".to_owned(),
                value: end,
                limit: limits::HEADER_BYTES,
            });
        }
        if let Some(file_len) = self.file_len
            && end > file_len
        {
            return Err(Error::Truncated {
                what: what.to_owned(),
                need: end,
                file_len,
            });
        }
        let taken = self
            .bytes
            .get(self.position..end as usize)
            .ok_or(Error::Incomplete {
                have: self.bytes.len() as u64,
                need_at_least: end,
            })?;
        self.position = end as usize;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A length-prefixed string of at most `limit` bytes.
    pub(crate) fn string(&mut self, what: &str, limit: u64) -> Result<String, Error> {
        let length = self.u64(what)?;
        if length > limit {
            return Err(Error::Limit {
                what: format!("the length of {what}"),
                value: length,
                limit,
            });
        }
        let bytes = self.take(length, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Error::Utf8 {
            what: what.to_owned(),
        })
    }

    /// `count` numbers of `N` bytes each.
    pub(crate) fn numbers<T, const N: usize>(
        &mut self,
        what: &str,
        count: usize,
        from_le_bytes: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Error> {
        let (chunks, _) = self
            .take((count as u64).saturating_mul(N as u64), what)?
            .as_chunks::<N>();
        Ok(chunks.iter().map(|chunk| from_le_bytes(*chunk)).collect())
    }
}
