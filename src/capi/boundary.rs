//! What every call passes through: no panic leaves the library, and an error leaves a status and a text.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ffi::c_char;
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::status::ols_status_t;
use crate::error::Result;

/// Runs `body` so that neither an error nor a panic leaves the library. The thread's text is cleared first: it always belongs to the latest call.
///
/// `AssertUnwindSafe`: all that a body can leave half done lies behind the lock of a criterion, which a panic poisons; every later call on that
/// criterion is refused.
pub(super) fn boundary(name: &str, body: impl FnOnce() -> Result<()>) -> ols_status_t {
    set_message(format_args!(""));
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ols_status_t::OLS_STATUS_OK,
        Ok(Err(error)) => {
            set_message(format_args!("{name}: {error}"));
            error.kind().into()
        }
        Err(payload) => {
            set_message(format_args!("{name}: panic (a bug in libols): {}", text_of(&*payload)));
            // A payload may run code when it is dropped, and that may panic again: it is left alone.
            std::mem::forget(payload);
            ols_status_t::OLS_STATUS_PANIC
        }
    }
}

/// As [`boundary`], for a function that returns nothing and leaves the text as it is.
pub(super) fn silent_boundary(body: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
        std::mem::forget(payload);
    }
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no text",
    }
}

/// The text of an error, its end marked by 0. A fixed size: writing it allocates nothing, and a thread that ends has nothing to free.
struct Message {
    bytes: [u8; Message::CAPACITY],
    length: usize,
}

impl Message {
    const CAPACITY: usize = 1024;
}

impl Write for Message {
    /// Appends what fits, without cutting a character in two.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars().filter(|&character| character != '\0') {
            let end = self.length + character.len_utf8();
            if end >= Self::CAPACITY {
                return Err(fmt::Error);
            }
            character.encode_utf8(&mut self.bytes[self.length..end]);
            self.length = end;
        }
        Ok(())
    }
}

thread_local! {
    static MESSAGE: UnsafeCell<Message> = const { UnsafeCell::new(Message { bytes: [0; Message::CAPACITY], length: 0 }) };
}

fn set_message(text: fmt::Arguments<'_>) {
    MESSAGE.with(|message| {
        // SAFETY: the cell is this thread's own, and no reference to it outlives one of the two functions that use it. Formatting runs only
        // `Display` of this crate and of std, which call neither.
        let message = unsafe { &mut *message.get() };
        message.length = 0;
        // An error says that the text was cut off; there is nothing better to do with the rest.
        let _ = message.write_fmt(text);
        message.bytes[message.length] = 0;
    });
}

/// This thread's text.
pub(super) fn message() -> *const c_char {
    MESSAGE.with(|message| message.get().cast_const().cast())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;
    use crate::error::fail;

    fn last() -> String {
        // SAFETY: the text of this thread ends with 0, and nothing writes it before the copy is made.
        unsafe { CStr::from_ptr(message()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn errors_and_panics_become_statuses_with_a_text_of_their_own() {
        assert_eq!(boundary("f", || fail!(InvalidShape, "no")), ols_status_t::OLS_STATUS_INVALID_SHAPE);
        assert_eq!(last(), "f: no");
        assert_eq!(boundary("f", || panic!("boom {}", 1)), ols_status_t::OLS_STATUS_PANIC);
        assert_eq!(last(), "f: panic (a bug in libols): boom 1");
        assert_eq!(boundary("f", || Ok(())), ols_status_t::OLS_STATUS_OK);
        assert_eq!(last(), "");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_no_way_out() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(boundary("f", || std::panic::panic_any(Bomb)), ols_status_t::OLS_STATUS_PANIC);
        assert_eq!(last(), "f: panic (a bug in libols): no text");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        boundary("f", || fail!(Io, "{}", "\u{e4}".repeat(2000)));
        assert_eq!(last().len(), 1023);
        boundary("ff", || fail!(Io, "{}", "\u{e4}".repeat(2000)));
        assert_eq!(last().len(), 1022);
    }
}
