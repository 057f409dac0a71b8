//! Reports as one HTML page that needs nothing else: style, pictures and a short script for sorting are in it, and without the
//! script everything can be read.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, context};

use super::{Report, ReportError};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
pub fn page(report: &Report) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page", TEMPLATE)?;
    let version = env!("CARGO_PKG_VERSION");
    let content = context! { report => Serde(report), version, css => STYLE, script => SCRIPT };
    Ok(environment.get_template("page")?.render(content)?)
}
