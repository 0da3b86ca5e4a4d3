//! Reads the text of a rule, and bounds its stack and memory. [`super::cost`] bounds its time.

use super::{NAMESPACE, guarded};
use cel::common::ast::{
    ComprehensionExpr, EntryExpr, Expr, IdedExpr, MapExpr, StructExpr, operators,
};
use cel::parser::PrattParser;

/// Maximum length of a rule in bytes, as in the schema.
pub(super) const MAX_RULE_BYTES: usize = 1024;
/// Maximum depth of an expression: evaluation recurses on the stack of a worker thread.
const MAX_DEPTH: usize = 32;
/// Maximum depth of loops within loops. Two take a hundred times a hundred passes: milliseconds.
const MAX_LOOP_DEPTH: usize = 2;
/// Maximum number of elements of a list or map that is written out.
const MAX_ELEMENTS: usize = 256;

/// Parses an expression, or returns the reason why it cannot be read.
pub(super) fn parse(source: &str) -> Result<IdedExpr, String> {
    if source.len() > MAX_RULE_BYTES {
        return Err(format!(
            "it is too long: write at most {MAX_RULE_BYTES} bytes"
        ));
    }
    let parsed = guarded(|| PrattParser::new().parse(source))
        .ok_or_else(|| "it cannot be read".to_owned())?;
    let expression = parsed.map_err(|errors| match errors.errors.first() {
        Some(error) => {
            let (line, column) = error.pos;
            let hint = match error.msg.as_str() {
                "reserved identifier: namespace" => format!("; write {NAMESPACE}"),
                _ => String::new(),
            };
            format!("line {line}, column {column}: {}{hint}", error.msg)
        }
        None => "it cannot be read".to_owned(),
    })?;
    excess(&expression).map_or(Ok(expression), Err)
}

/// The limit that an expression exceeds.
fn excess(expression: &IdedExpr) -> Option<String> {
    if depth(expression) > MAX_DEPTH {
        return Some(format!(
            "it is nested too deeply: write at most {MAX_DEPTH} levels"
        ));
    }
    parts(expression)
        .into_iter()
        .find_map(|(part, loops)| match &part.expr {
            _ if loops > MAX_LOOP_DEPTH => Some(format!(
                "it has too many loops within loops: write at most {MAX_LOOP_DEPTH}"
            )),
            // map() could make lists of lists, each ten times as long as the one before.
            Expr::Comprehension(each) if is_map(each) => Some(
                "map() is not supported: write all(), exists(), exists_one() or filter()"
                    .to_owned(),
            ),
            _ if elements(part) > MAX_ELEMENTS => Some(format!(
                "it has a list or map that is too long: write at most {MAX_ELEMENTS} elements"
            )),
            // Each reads or copies all of its arguments at every pass.
            Expr::Call(call)
                if loops == MAX_LOOP_DEPTH && is_costly(&call.func_name, &call.args) =>
            {
                Some("matches() and + are not supported in a loop within a loop".to_owned())
            }
            _ => None,
        })
}

/// Whether a loop makes a list of something else than the elements that it runs through.
fn is_map(each: &ComprehensionExpr) -> bool {
    let step = match &each.loop_step.expr {
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => call.args.get(1),
        _ => Some(&each.loop_step),
    };
    let added = step.and_then(|step| match &step.expr {
        Expr::Call(call) if call.func_name == operators::ADD => call.args.get(1),
        _ => None,
    });
    added.is_some_and(|added| match &added.expr {
        Expr::List(list) => {
            let is_element =
                |part: &IdedExpr| matches!(&part.expr, Expr::Ident(name) if *name == each.iter_var);
            !list.elements.iter().all(is_element)
        }
        _ => false,
    })
}

fn elements(part: &IdedExpr) -> usize {
    match &part.expr {
        Expr::List(list) => list.elements.len(),
        Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => entries.len(),
        _ => 0,
    }
}

fn is_costly(function: &str, arguments: &[IdedExpr]) -> bool {
    // Loops themselves count and collect by an addition to an internal variable.
    function == "matches" || function == operators::ADD && !is_internal(arguments.first())
}

/// Whether an expression is a variable that no author can write.
pub(super) fn is_internal(expression: Option<&IdedExpr>) -> bool {
    let expression = expression.map(|it| &it.expr);
    matches!(expression, Some(Expr::Ident(name)) if name.starts_with('@'))
}

/// Every part of an expression, the inner ones first, with the number of loops around it.
pub(super) fn parts(expression: &IdedExpr) -> Vec<(&IdedExpr, usize)> {
    let mut parts = Vec::new();
    collect(expression, 0, &mut parts);
    parts
}

fn collect<'e>(expression: &'e IdedExpr, loops: usize, parts: &mut Vec<(&'e IdedExpr, usize)>) {
    for (child, is_repeated) in children(expression) {
        collect(child, loops + usize::from(is_repeated), parts);
    }
    parts.push((expression, loops));
}

fn depth(expression: &IdedExpr) -> usize {
    let depths = children(expression)
        .into_iter()
        .map(|(child, _)| depth(child));
    1 + depths.max().unwrap_or_default()
}

/// The parts of an expression, and whether each is evaluated once for every element of a list.
fn children(expression: &IdedExpr) -> Vec<(&IdedExpr, bool)> {
    let once = |part| (part, false);
    match &expression.expr {
        Expr::Call(call) => {
            let target = call.target.as_deref().into_iter();
            target.chain(&call.args).map(once).collect()
        }
        Expr::Comprehension(each) => vec![
            (&each.iter_range, false),
            (&each.accu_init, false),
            (&each.loop_cond, true),
            (&each.loop_step, true),
            // The result uses the variable of the loop, so it is no part of its own.
            (&each.result, true),
        ],
        Expr::List(list) => list.elements.iter().map(once).collect(),
        Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => {
            let parts = entries.iter().flat_map(|entry| of_entry(&entry.expr));
            parts.map(once).collect()
        }
        Expr::Select(select) => vec![(&*select.operand, false)],
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

/// The parts of an expression, to be changed.
pub(super) fn children_mut(expression: &mut IdedExpr) -> Vec<&mut IdedExpr> {
    match &mut expression.expr {
        Expr::Call(call) => {
            let target = call.target.as_deref_mut().into_iter();
            target.chain(&mut call.args).collect()
        }
        Expr::Comprehension(each) => vec![
            &mut each.iter_range,
            &mut each.accu_init,
            &mut each.loop_cond,
            &mut each.loop_step,
            &mut each.result,
        ],
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => {
            let entries = entries.iter_mut();
            entries
                .flat_map(|entry| of_entry_mut(&mut entry.expr))
                .collect()
        }
        Expr::Select(select) => vec![&mut *select.operand],
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn of_entry_mut(entry: &mut EntryExpr) -> Vec<&mut IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&mut field.value],
        EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
    }
}

pub(super) fn of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}
