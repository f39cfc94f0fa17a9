//! Standard output and standard error.
//!
//! Whoever reads them may go away: `kindling plan | head`, a journal that is started anew. What nobody reads is dropped, and the
//! work goes on. SIGPIPE stays ignored, as Rust starts every program: with its default a connection that the other side
//! closes, too, would end the process without a word, in the middle of what it does to the machine.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::OnceLock;

/// What else went wrong with standard output, such as a full disk.
static FAILED: OnceLock<String> = OnceLock::new();

fn note(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = FAILED.set(error.to_string());
    }
}

pub fn out(text: Arguments<'_>) {
    note(io::stdout().lock().write_fmt(text));
}

/// There is nobody to tell where this fails.
pub fn err(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Why not all of it was written; `None` where all that has a reader was.
pub fn finish() -> Option<&'static str> {
    note(io::stdout().flush());
    FAILED.get().map(String::as_str)
}

// As the standard library's, which panic where nobody reads.

#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::output::out(::std::format_args!($($text)*)) };
}

#[macro_export]
macro_rules! println {
    ($($text:tt)*) => { $crate::print!("{}\n", ::std::format_args!($($text)*)) };
}

#[macro_export]
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::err(::std::format_args!("{}\n", ::std::format_args!($($text)*))) };
}
