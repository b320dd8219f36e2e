//! `/docs`: the OpenAPI document as a page for people. It needs no script and nothing from elsewhere.

use std::fmt::Write;

use serde_json::Value;
use utoipa::openapi::OpenApi;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
    h2{border-bottom:1px solid #ccc;margin-top:2.5rem}h3 code{font-size:1.1rem}code{background:#f0f0f0;padding:0 .2em}\
    table{border-collapse:collapse;width:100%}td,th{border:1px solid #ddd;padding:.2rem .5rem;text-align:left;vertical-align:top}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}code{background:#333}td,th,h2{border-color:#444}a{color:#8bf}}";

/// The page.
pub(super) fn page(document: &OpenApi) -> String {
    let document = serde_json::to_value(document).unwrap_or_default();
    let mut html = String::new();
    let info = &document["info"];
    let title = format!("{} {}", text(&info["title"]), text(&info["version"]));
    // Writing to a string cannot fail.
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{}</p>\
         <p>This page is made from <a href=\"/openapi.json\">/openapi.json</a>. Where tokens are configured, all but the routes under \
         \u{201c}health\u{201d} need <code>Authorization: Bearer \u{2026}</code>.</p>",
        prose(&info["description"])
    );
    for tag in list(&document["tags"]) {
        let _ = write!(html, "<h2>{}</h2><p>{}</p>", text(&tag["name"]), prose(&tag["description"]));
        for (path, item) in fields(&document["paths"]) {
            for (method, operation) in fields(item) {
                if list(&operation["tags"]).contains(&tag["name"]) {
                    write_operation(&mut html, &method.to_uppercase(), path, operation);
                }
            }
        }
    }
    html.push_str("<h2>schemas</h2>");
    for (name, schema) in fields(&document["components"]["schemas"]) {
        let _ = write!(html, "<h3 id=\"{0}\"><code>{0}</code></h3><p>{1}</p>", escaped(name), prose(&schema["description"]));
        write_schema(&mut html, schema);
    }
    html
}

fn write_operation(html: &mut String, method: &str, path: &str, operation: &Value) {
    let said = [&operation["summary"], &operation["description"]].map(prose).join(" ");
    let _ = write!(html, "<h3><code>{method} {}</code></h3><p>{said}</p><table>", escaped(path));
    for parameter in list(&operation["parameters"]) {
        let (place, name) = (text(&parameter["in"]), text(&parameter["name"]));
        let _ = write!(html, "<tr><th>{place}<td><code>{name}</code><td>{}", prose(&parameter["description"]));
    }
    for (kind, media) in fields(&operation["requestBody"]["content"]) {
        let _ = write!(html, "<tr><th>body<td><code>{}</code><td>{}", escaped(kind), type_of(&media["schema"]));
    }
    for (status, response) in fields(&operation["responses"]) {
        let schemas: Vec<String> = fields(&response["content"]).map(|(_, media)| type_of(&media["schema"])).collect();
        let (said, schemas) = (prose(&response["description"]), schemas.join(", "));
        let _ = write!(html, "<tr><th>{}<td>{schemas}<td>{said}", escaped(status));
    }
    html.push_str("</table>");
}

fn write_schema(html: &mut String, schema: &Value) {
    if fields(&schema["properties"]).next().is_none() {
        let _ = write!(html, "<p>{}</p>", type_of(schema));
        return;
    }
    html.push_str("<table>");
    for (name, property) in fields(&schema["properties"]) {
        let _ = write!(
            html,
            "<tr><td><code>{}</code><td>{}<td>{}",
            escaped(name),
            type_of(property),
            prose(&property["description"])
        );
    }
    html.push_str("</table>");
}

/// What a schema is, in a few words.
fn type_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("<a href=\"#{0}\">{0}</a>", escaped(name));
    }
    for (key, word) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
        let alternatives: Vec<String> = list(&schema[key]).iter().map(type_of).collect();
        if !alternatives.is_empty() {
            return alternatives.join(word);
        }
    }
    let values: Vec<String> = list(&schema["enum"]).iter().map(|value| format!("<code>{}</code>", text(value))).collect();
    if !values.is_empty() {
        return values.join(" ");
    }
    let inside =
        fields(&schema["properties"]).map(|(name, property)| format!("<code>{}</code>: {}", escaped(name), type_of(property)));
    let inside: Vec<String> = inside.collect();
    if !inside.is_empty() {
        return format!("{{{}}}", inside.join(", "));
    }
    match &schema["type"] {
        Value::String(kind) if kind == "array" => format!("list of {}", type_of(&schema["items"])),
        Value::String(kind) => escaped(kind),
        Value::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" or "),
        _ => "anything".to_owned(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

/// Text with code between backticks.
fn prose(value: &Value) -> String {
    let pieces = value.as_str().unwrap_or_default().split('`').map(escaped).enumerate();
    pieces.map(|(n, piece)| if n % 2 == 1 { format!("<code>{piece}</code>") } else { piece }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
