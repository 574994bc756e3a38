//! Any bytes as HTTP requests: no panic, and the same requests and refusals for every split of the input. Seeds are
//! in testdata/fuzz/http.

#![no_main]

use lea::http::parse::{Limits, Parser, Step};
use libfuzzer_sys::fuzz_target;

/// What the parser makes of these segments: a text a request, and the refusal where there is one.
fn outcomes<'a>(segments: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut parser = Parser::new(Limits { body_bytes_max: 4096, ..Limits::default() });
    let mut seen = Vec::new();
    for mut rest in segments {
        loop {
            let (used, step) = parser.feed(rest);
            rest = &rest[used..];
            match step {
                Step::More => break,
                Step::Head => {}
                Step::Request => {
                    let request = parser.request();
                    let pairs: Vec<_> = request.query_pairs().collect();
                    let headers: Vec<_> = request.headers().collect();
                    let (method, path, body) = (request.method(), request.path(), request.body());
                    seen.push(format!("{method:?} {path} {pairs:?} {headers:?} {body:?}"));
                    parser.next_request();
                }
                Step::Refuse(refusal) => {
                    seen.push(format!("{refusal:?}"));
                    return seen;
                }
            }
        }
    }
    seen
}

fuzz_target!(|input: &[u8]| {
    let whole = outcomes(std::iter::once(input));
    for segment_bytes in [1, 2, 7, 64] {
        assert_eq!(outcomes(input.chunks(segment_bytes)), whole, "{segment_bytes} bytes at once");
    }
});
