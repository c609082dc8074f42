//! Requests whose end could be understood in more than one way, each with a valid transaction in it: whoever picks one
//! reading answers 200, and the bytes that the other reading leaves over become somebody's request (RFC 9112, section 11.2).

/// The transaction in all of them: one cent to client 1.
pub(crate) const CREDIT: &str = r#"{"valor": 1, "tipo": "c", "descricao": "a"}"#;

/// A POST of these fields and this body to client 1.
pub(crate) fn raw(fields: &str, body: &str) -> String {
    format!("POST /clientes/1/transacoes HTTP/1.1\r\nHost: test\r\n{fields}\r\n{body}")
}

/// `CREDIT` in chunks of at most that length, without the last one.
pub(crate) fn chunks_of(len_bytes: usize) -> String {
    let chunk = |chunk: &[u8]| format!("{:X}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk));
    CREDIT.as_bytes().chunks(len_bytes).map(chunk).collect()
}

/// `CREDIT` in chunks, with the last one.
pub(crate) fn coded() -> String {
    chunks_of(20) + "0\r\n\r\n"
}

/// All of them.
pub(crate) fn ambiguous() -> Vec<String> {
    let len = CREDIT.len();
    let lengths = [
        format!("Content-Length: {len}\r\nContent-Length: {len}\r\n"),
        format!("Content-Length: {len}\r\nContent-Length: 1\r\n"),
        format!("Content-Length: 1\r\nContent-Length: {len}\r\n"),
        format!("Content-Length: {len}, {len}\r\n"),
        format!("Content-Length: +{len}\r\n"),
        format!("Content-Length: -{len}\r\n"),
        format!("Content-Length: 0x{len:x}\r\n"),
        format!("Content-Length: {len}.0\r\n"),
        "Content-Length: \r\n".to_owned(),
    ];
    let coded = coded();
    let coded_len = coded.len();
    let codings = [
        format!("Content-Length: {coded_len}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {coded_len}\r\n"),
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, gzip\r\n".to_owned(),
        "Transfer-Encoding: \r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
    ];
    let of_1_0 = raw("Transfer-Encoding: chunked\r\n", &coded).replace("HTTP/1.1", "HTTP/1.0");
    let lengths = lengths.iter().map(|fields| raw(fields, CREDIT));
    lengths.chain(codings.iter().map(|fields| raw(fields, &coded))).chain([of_1_0]).collect()
}
