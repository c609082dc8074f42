//! A private copy of the project's `nginx.conf`, which is written for its container.

use std::path::{Path, PathBuf};

use crate::Error;

/// What the copy has of its own.
#[derive(Debug)]
pub(crate) struct Rendering<'a> {
    pub(crate) port: u16,
    /// The sockets of the two instances.
    pub(crate) upstreams: &'a [PathBuf; 2],
    /// Where nginx may write: its pid file and temporary files.
    pub(crate) directory: &'a Path,
    /// See [`NginxTool`](crate::setup::tools::NginxTool).
    pub(crate) stream_module: Option<&'a Path>,
}

/// Renders the copy.
///
/// # Errors
/// [`Error::Refused`] when something to be replaced is not there: the copy would use the container's paths.
pub(crate) fn render(template: &str, rendering: &Rendering<'_>) -> Result<String, Error> {
    let directory = rendering.directory.display();
    let [upstream_1, upstream_2] = rendering.upstreams;
    let replacements = [
        ("/run/rinha/webapi1.sock", upstream_1.display().to_string()),
        ("/run/rinha/webapi2.sock", upstream_2.display().to_string()),
        ("listen 9999", format!("listen {}", rendering.port)),
        ("pid /tmp/nginx.pid;", format!("pid {directory}/{PID_FILE};")),
    ];
    let mut copy = template.to_owned();
    for (original, replacement) in replacements {
        if !copy.contains(original) {
            return Err(Error::Refused(format!(
                "nginx.conf has no `{original}` to replace for use outside its container: write it that way"
            )));
        }
        copy = copy.replace(original, &replacement);
    }
    // Built-in paths for temporary files belong to the system's nginx, and not every user may write there.
    if let Some((before, after)) = copy.split_once("http {") {
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("\n    {kind}_temp_path {directory}/{kind};"))
            .concat();
        copy = format!("{before}http {{{paths}{after}");
    }
    // Relative to nginx's own directory, which is not the private one.
    let module = rendering.stream_module.map(|module| format!("load_module {};", module.display()));
    Ok(copy.replace(MODULES, &module.unwrap_or_default()))
}

/// How a template loads the stream module where it is a dynamic one.
const MODULES: &str = "include /etc/nginx/modules-enabled/*.conf;";
pub(crate) const PID_FILE: &str = "nginx.pid";

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "\
pid /tmp/nginx.pid;
http {
    upstream webapi { server unix:/run/rinha/webapi1.sock; server unix:/run/rinha/webapi2.sock; }
    server { listen 9999 backlog=4096; }
}
";

    fn render_with(template: &str, stream_module: Option<&Path>) -> Result<String, Error> {
        let upstreams = [PathBuf::from("/d/one.sock"), PathBuf::from("/d/two.sock")];
        let directory = Path::new("/var/tmp/d");
        render(template, &Rendering { port: 40123, upstreams: &upstreams, directory, stream_module })
    }

    #[test]
    fn replaces_what_belongs_to_the_container() {
        let copy = render_with(TEMPLATE, None).unwrap();
        for expected in [
            "pid /var/tmp/d/nginx.pid;",
            "unix:/d/one.sock;",
            "unix:/d/two.sock;",
            "listen 40123 backlog=4096;",
            "http {\n    client_body_temp_path /var/tmp/d/client_body;",
        ] {
            assert!(copy.contains(expected), "{expected} is not in\n{copy}");
        }
        assert!(!copy.contains("/run/rinha") && !copy.contains("9999"), "{copy}");
    }

    #[test]
    fn refuses_a_template_that_lacks_a_place() {
        for missing in ["/run/rinha/webapi2.sock", "listen 9999", "pid /tmp/nginx.pid;"] {
            let refusal = render_with(&TEMPLATE.replace(missing, "x"), None).unwrap_err().to_string();
            assert!(refusal.contains(missing), "{refusal}");
        }
    }

    #[test]
    fn loads_the_stream_module_only_where_the_template_loads_modules() {
        let module = Some(Path::new("/m/ngx_stream_module.so"));
        assert!(!render_with(TEMPLATE, module).unwrap().contains("load_module"));
        let layer_4 = format!("{MODULES}\n{}", TEMPLATE.replace("http {", "stream {"));
        assert!(render_with(&layer_4, module).unwrap().starts_with("load_module /m/ngx_stream_module.so;\n"));
        assert!(!render_with(&layer_4, None).unwrap().contains("load_module"), "where it is built in");
        assert!(!render_with(&layer_4, module).unwrap().contains(MODULES));
    }
}
