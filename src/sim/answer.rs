//! CORE, simulation only: reads a response strictly: exactly the fields that are promised, in their order.

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a str,
    pub(crate) retries_after: bool,
    pub(crate) allow: Option<&'a str>,
    pub(crate) connection: Option<&'a str>,
    pub(crate) len_bytes: usize,
}

/// Reads one response from the start of the bytes; `None` while it is not whole.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(bytes: &[u8], is_head_only: bool) -> Result<Option<Answer<'_>>, String> {
    let Some(head_len_bytes) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_LEN_MAX_BYTES {
            Err("its head has no end".to_owned())
        } else {
            Ok(None)
        };
    };
    let head = str::from_utf8(&bytes[..head_len_bytes]).map_err(|_| "its head is no text")?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(code, _reason)| code.parse().ok())
        .ok_or_else(|| format!("its status line is {status_line:?}"))?;
    let mut answer = Answer {
        status,
        content_type: "",
        body: "",
        retries_after: false,
        allow: None,
        connection: None,
        len_bytes: head_len_bytes + 4,
    };
    if status == 100 {
        return if head == status_line {
            Ok(Some(answer))
        } else {
            Err("100 Continue has fields".to_owned())
        };
    }
    let mut content_len_bytes = None;
    let mut has_date = false;
    for line in lines {
        match line.split_once(": ") {
            Some(("Content-Type", value)) => answer.content_type = value,
            Some(("Content-Length", value)) => content_len_bytes = value.parse::<usize>().ok(),
            Some(("Date", value)) => has_date = value.len() == 29 && value.ends_with(" GMT"),
            Some(("Retry-After", "1")) => answer.retries_after = true,
            Some(("Allow", value)) => answer.allow = Some(value),
            Some(("Connection", value)) => answer.connection = Some(value),
            Some(_) | None => return Err(format!("its head has the line {line:?}")),
        }
    }
    if !has_date {
        return Err("it has no date".to_owned());
    }
    let content_len_bytes = content_len_bytes.ok_or("it has no length")?;
    if !is_head_only {
        let Some(body) = bytes.get(answer.len_bytes..answer.len_bytes + content_len_bytes) else {
            return Ok(None);
        };
        answer.body = str::from_utf8(body).map_err(|_| "its body is no text")?;
        answer.len_bytes += content_len_bytes;
    }
    Ok(Some(answer))
}

/// No head of ours comes near it.
const HEAD_LEN_MAX_BYTES: usize = 1_024;
