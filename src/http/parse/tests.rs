//! Tests of the request parser: each input is also parsed in every split in two, and byte by byte.

use super::*;
use crate::http::chunked::{CHUNK_EXTRA_BYTES_MAX, CHUNK_LINE_BYTES_MAX};
use crate::http::limits::HEADERS_MAX;

const HOST: &str = "Host: a\r\n";
const LIMITS: RequestLimits =
    RequestLimits { head_bytes_max: 400, target_bytes_max: 100, body_bytes_max: 20 };

/// Parses these segments. Returns one line per request, and a last line if the rest is invalid or incomplete.
fn outcomes(segments: &[&[u8]]) -> Vec<String> {
    let mut parser = RequestParser::new(LIMITS);
    let mut outcomes = Vec::new();
    let mut heads = 0;
    for segment in segments {
        let mut rest = *segment;
        loop {
            let (used, step) = parser.feed(rest);
            rest = &rest[used..];
            match step {
                ParseStep::NeedMore => {
                    assert!(rest.is_empty(), "all input is consumed when more is needed");
                    break;
                }
                ParseStep::Head => heads += 1,
                ParseStep::Request => {
                    outcomes.push(describe(parser.request()));
                    assert_eq!(heads, outcomes.len(), "one head per request");
                    parser.next_request();
                }
                ParseStep::Invalid(error) => {
                    outcomes.push(error.status.to_string());
                    return outcomes;
                }
            }
        }
    }
    if !parser.is_idle() {
        outcomes.push("more".to_owned());
    }
    outcomes
}

fn describe(request: &Request) -> String {
    let keep = if request.keep_alive { "keep" } else { "close" };
    let body = String::from_utf8_lossy(request.body());
    format!("{:?} {} {} {keep} {body}", request.method(), request.path(), request.query())
        .trim_end()
        .to_owned()
}

/// Checks the outcome for the whole input, for each split in two, and byte by byte.
fn check_bytes(input: &[u8], expected: &[&str]) {
    let escaped = input.escape_ascii();
    assert_eq!(outcomes(&[input]), expected, "whole: {escaped}");
    for at in 0..=input.len() {
        let (a, b) = input.split_at(at);
        assert_eq!(outcomes(&[a, b]), expected, "split at {at}: {escaped}");
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(outcomes(&bytes), expected, "byte by byte: {escaped}");
}

fn check(input: &str, expected: &[&str]) {
    check_bytes(input.as_bytes(), expected);
}

/// Checks a request with `Host` and these headers, followed by `rest`.
fn check_post(headers: &str, rest: &str, expected: &[&str]) {
    check(&format!("POST /p HTTP/1.1\r\n{HOST}{headers}\r\n{rest}"), expected);
}

#[test]
fn plain_requests_are_parsed() {
    check("", &[]);
    check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &["Get /  keep"]);
    check("GET /a/b%20c?x=1&y HTTP/1.1\r\nhOST: a\r\n\r\n", &["Get /a/b%20c x=1&y keep"]);
    check("GET /? HTTP/1.1\r\nHost:\r\n\r\n", &["Get /  keep"]);
    check("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", &["Get /\u{e9}  keep"]);
    check("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", &["Head /  close"]);
    check("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", &["Get /  close"]);
    check("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n", &["Get /  keep"]);
    check("GET / HTTP/1.1\r\nHost: a\r\n", &["more"]);
}

#[test]
fn pipelined_requests_are_parsed_one_by_one() {
    check(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
         GET /4 HTTP/1.0\r\n\r\nGARBAGE\r\n",
        &["Get /1  keep", "Post /2  keep abc", "Post /3  keep x", "Get /4  close", "400"],
    );
}

#[test]
fn targets_are_in_origin_or_absolute_form_or_a_star() {
    check("GET http://a.example:80/p?q HTTP/1.1\r\nHost: b\r\n\r\n", &["Get /p q keep"]);
    check("GET HTTPS://a.example HTTP/1.1\r\nHost: b\r\n\r\n", &["Get /  keep"]);
    check("GET http://a?q/r HTTP/1.1\r\nHost: b\r\n\r\n", &["Get / q/r keep"]);
    check("OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n", &["Options *  keep"]);
    check("GET * HTTP/1.1\r\nHost: b\r\n\r\n", &["400"]);
    check("GET http:///p HTTP/1.1\r\nHost: b\r\n\r\n", &["400"]);
    check("GET http:// HTTP/1.1\r\nHost: b\r\n\r\n", &["400"]);
    check("GET ftp://a/ HTTP/1.1\r\nHost: b\r\n\r\n", &["400"]);
    check("GET p HTTP/1.1\r\nHost: b\r\n\r\n", &["400"]);
    check("GET /p#f HTTP/1.1\r\nHost: b\r\n\r\n", &["400"]);
    check("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", &["501"]);
    check_bytes(b"GET /\xff HTTP/1.1\r\nHost: b\r\n\r\n", &["400"]);
}

#[test]
fn malformed_request_lines_are_rejected() {
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["505"]);
    check("GET / HTTP/1.2\r\n", &["505"]);
    check("GET / HTTP/0.9\r\n", &["505"]);
    check("GET / http/1.1\r\n", &["400"]);
    check("GET / HTTP/1.10\r\n", &["400"]);
    check("GET /\r\n", &["400"]);
    check("GET  / HTTP/1.1\r\n", &["400"]);
    check("GET / HTTP/1.1 \r\n", &["400"]);
    check(" GET / HTTP/1.1\r\n", &["400"]);
    check("GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\n", &["400"]);
    check("\n", &["400"]);
    check("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", &["400"]);
    check("\r\n\r\n\r\n\r\n\r\n", &["400"]);
    check("get / HTTP/1.1\r\nHost: a\r\n\r\n", &["501"]);
    check("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", &["501"]);
    check("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", &["400"]);
    check_bytes(b"\x16\x03\x01\x02\x00\x01\x00", &["400"]);
    check_bytes(b"\0", &["400"]);
}

#[test]
fn ambiguous_headers_are_rejected() {
    check("GET / HTTP/1.1\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost: a\r\n\tfolded\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\n Host: a\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost : a\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost: a\r\n\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", &["400"]);
    check("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", &["400"]);
}

#[test]
fn a_content_length_is_one_plain_number_within_the_limit() {
    check_post("", "", &["Post /p  keep"]);
    check_post("Content-Length: 0\r\n", "", &["Post /p  keep"]);
    check_post("Content-Length: 00003\r\n", "abc", &["Post /p  keep abc"]);
    check_post("Content-Length: 3\r\n", "ab", &["more"]);
    check_post("Content-Length: 20\r\n", "01234567890123456789", &["Post /p  keep 01234567890123456789"]);
    check_post("Content-Length: 21\r\n", "", &["413"]);
    check_post("Content-Length: 18446744073709551615\r\n", "", &["413"]);
    check_post("Content-Length: 18446744073709551617\r\n", "", &["413"]);
    for value in ["-1", "+3", "3, 3", "3,4", "0x3", "3 3", "", "3;", "\u{0663}"] {
        check_post(&format!("Content-Length: {value}\r\n"), "abc", &["400"]);
    }
    check_post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd", &["400"]);
    check_post("Content-Length: 3\r\ncontent-length: 3\r\n", "abc", &["400"]);
}

#[test]
fn the_only_transfer_encoding_is_chunked() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    check_post("transfer-encoding:\tChunked \r\n", "3\r\nabc\r\n0\r\n\r\n", &["Post /p  keep abc"]);
    check_post(&format!("Content-Length: 3\r\n{chunked}"), "0\r\n\r\n", &["400"]);
    check_post(&format!("{chunked}Content-Length: 3\r\n"), "0\r\n\r\n", &["400"]);
    check_post(&format!("{chunked}{chunked}"), "0\r\n\r\n", &["400"]);
    for value in ["gzip, chunked", "chunked, identity", "chunked,", "identity", "xchunked", "\"chunked\"", ""]
    {
        check_post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n", &["501"]);
    }
    check_post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n", &["400"]);
    check_post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n", &["400"]);
    check(&format!("POST /p HTTP/1.0\r\n{chunked}\r\n0\r\n\r\n"), &["400"]);
}

#[test]
fn chunks_are_joined_and_malformed_chunks_rejected() {
    let check_chunks = |rest: &str, expected| check_post("Transfer-Encoding: chunked\r\n", rest, expected);
    check_chunks("0\r\n\r\n", &["Post /p  keep"]);
    check_chunks("3\r\nabc\r\n00A\r\n0123456789\r\n000\r\n\r\n", &["Post /p  keep abc0123456789"]);
    check_chunks("14\r\n01234567890123456789\r\n0\r\n\r\n", &["Post /p  keep 01234567890123456789"]);
    check_chunks("15\r\n", &["413"]);
    check_chunks("3\r\nabc\r\n12\r\n", &["413"]);
    check_chunks("ffffffffffffffff\r\n", &["413"]);
    check_chunks("10000000000000000\r\n", &["413"]);
    check_chunks("10000000000000003\r\nabc\r\n0\r\n\r\n", &["413"]);
    check_chunks("3;a=b;c=\"d\"\r\nabc\r\n0;z\r\n\r\n", &["Post /p  keep abc"]);
    check_chunks("3\r\nab", &["more"]);
    check_chunks("3\r\nabc\r\n0\r\n", &["more"]);
    for bad in ["\r\n", "g\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", " 1\r\n", "1 \r\n", "1;\x01\r\n", "1;\r;\r\n"]
    {
        check_chunks(bad, &["400"]);
    }
    check_chunks("3\nabc\r\n0\r\n\r\n", &["400"]);
    check_chunks("3\r\nabcd\r\n0\r\n\r\n", &["400"]);
    check_chunks("3\r\nabc\n0\r\n\r\n", &["400"]);
    check_chunks("3\r\nabc\r0\r\n\r\n", &["400"]);
}

#[test]
fn chunk_extensions_and_trailers_are_bounded() {
    let check_chunks = |rest: &str, expected| check_post("Transfer-Encoding: chunked\r\n", rest, expected);
    let filler = |bytes: usize| "x".repeat(bytes);
    check_chunks(&format!("1;{}\r\na\r\n0\r\n\r\n", filler(CHUNK_LINE_BYTES_MAX - 4)), &["Post /p  keep a"]);
    check_chunks(&format!("1;{}\r\na\r\n0\r\n\r\n", filler(CHUNK_LINE_BYTES_MAX - 3)), &["400"]);
    let extended = format!("1;{}\r\na\r\n", filler(250));
    check_chunks(&format!("{}0\r\n\r\n", extended.repeat(16)), &["Post /p  keep aaaaaaaaaaaaaaaa"]);
    check_chunks(&format!("{}0\r\n\r\n", extended.repeat(17)), &["400"]);
    check_chunks("0\r\nA: b\r\nContent-Length: 5\r\n\r\n", &["Post /p  keep"]);
    check_chunks("0\r\nA: b\n\r\n", &["400"]);
    check_chunks("0\r\nno colon\r\n\r\n", &["400"]);
    check_chunks("0\r\n folded: x\r\n\r\n", &["400"]);
    check_chunks(&format!("0\r\nA: {}\r\n\r\n", filler(CHUNK_EXTRA_BYTES_MAX - 7)), &["Post /p  keep"]);
    check_chunks(&format!("0\r\nA: {}\r\n\r\n", filler(CHUNK_EXTRA_BYTES_MAX - 6)), &["431"]);
}

#[test]
fn http_1_0_closes_unless_asked_and_needs_a_length() {
    check("GET / HTTP/1.0\r\n\r\n", &["Get /  close"]);
    check("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", &["Get /  keep"]);
    check("POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", &["Post /  close x"]);
    check("POST / HTTP/1.0\r\n\r\n", &["411"]);
    check("PUT / HTTP/1.0\r\n\r\n", &["411"]);
    check("DELETE / HTTP/1.0\r\n\r\n", &["Delete /  close"]);
}

#[test]
fn only_the_expectation_100_continue_is_accepted() {
    check_post("Expect: 100-Continue\r\nContent-Length: 1\r\n", "x", &["Post /p  keep x"]);
    check_post("Expect: 200-ok\r\nContent-Length: 1\r\n", "x", &["417"]);
    let expects = |input: &str| {
        let mut parser = RequestParser::new(LIMITS);
        assert_eq!(parser.feed(input.as_bytes()), (input.len(), ParseStep::Head));
        parser.request().expects_continue
    };
    assert!(expects("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"));
    assert!(expects(
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert!(!expects("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n"));
    assert!(!expects("PUT / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"));
}

#[test]
fn both_sides_of_each_limit_of_a_head() {
    let with_target = |bytes: usize| format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "x".repeat(bytes - 1));
    assert_eq!(outcomes(&[with_target(100).as_bytes()]).len(), 1);
    assert!(outcomes(&[with_target(100).as_bytes()])[0].starts_with("Get"));
    check(&with_target(101), &["414"]);
    check(&format!("GET /{}", "x".repeat(400)), &["414"]);

    let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    let with_head = |bytes: usize| format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4));
    check(&with_head(400), &["Get /  keep"]);
    check(&with_head(401), &["431"]);
    check(&format!("{start}{}", "x".repeat(400)), &["431"]);

    let with_headers = |count: usize| format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", "a:\r\n".repeat(count - 1));
    check(&with_headers(HEADERS_MAX), &["Get /  keep"]);
    check(&with_headers(HEADERS_MAX + 1), &["431"]);
}

#[test]
fn a_handler_sees_decoded_pairs_and_raw_headers() {
    let mut parser = RequestParser::new(RequestLimits::default());
    let input =
        b"GET /s?q=destNum:%2B44+7&pretty&x=%zz%ff HTTP/1.1\r\nHost: a\r\nX-A:  one \r\nx-a: two\r\n\r\n";
    assert_eq!(parser.feed(input).1, ParseStep::Head);
    assert_eq!(parser.feed(b"").1, ParseStep::Request);
    let request = parser.request();
    let pairs: Vec<_> = request.query_pairs().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(pairs, ["q=destNum:+44 7", "pretty=", "x=%zz\u{fffd}"]);
    assert_eq!(request.header("x-A"), Some(&b"one"[..]));
    assert_eq!(request.header("x-b"), None);
    assert_eq!(request.headers().count(), 3);
}

#[test]
fn the_memory_of_a_large_body_is_freed() {
    let mut parser = RequestParser::new(RequestLimits::default());
    let body = vec![b'x'; 1 << 20];
    parser.feed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n");
    assert_eq!(parser.feed(&body), (body.len(), ParseStep::Request));
    assert!(parser.body_capacity() >= body.len());
    parser.next_request();
    assert!(parser.body_capacity() <= KEPT_BYTES_MAX);
}
