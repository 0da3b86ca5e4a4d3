//! Reads the text of a rule, and bounds the stack and the memory that its evaluation takes. Its
//! time is bounded by its [cost](super::cost).

use super::{NAMESPACE, guarded};
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, operators};
use cel::parser::PrattParser;

/// As in the schema.
pub(super) const LONGEST: usize = 1024;
/// Evaluation recurses, on the stack of a worker thread.
const DEEPEST: usize = 32;
/// Loops over lists within loops over lists: two take a hundred times a hundred turns, which is
/// milliseconds.
const DEEPEST_LOOP: usize = 2;
/// Maximum number of elements of a list or map that is written out.
const MOST_ELEMENTS: usize = 256;

/// Reads an expression, or says why it cannot be read.
pub(super) fn parse(source: &str) -> Result<IdedExpr, String> {
    if source.len() > LONGEST {
        return Err(format!("it is too long: write at most {LONGEST} bytes"));
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
    match excess(&expression) {
        Some(excess) => Err(excess),
        None => Ok(expression),
    }
}

/// What would take too much.
fn excess(expression: &IdedExpr) -> Option<String> {
    if depth(expression) > DEEPEST {
        return Some(format!(
            "it is nested too deeply: write at most {DEEPEST} levels"
        ));
    }
    parts(expression)
        .into_iter()
        .find_map(|(part, loops)| match &part.expr {
            _ if loops > DEEPEST_LOOP => Some(format!(
                "it has too many loops within loops: write at most {DEEPEST_LOOP}"
            )),
            // A list of lists of lists, each ten times as long as the one before, takes but a few
            // words.
            Expr::Comprehension(each) if is_map(each) => Some(
                "map() is not offered: write all(), exists(), exists_one() or filter()".to_owned(),
            ),
            _ if elements(part) > MOST_ELEMENTS => Some(format!(
                "it has a list or map that is too long: write at most {MOST_ELEMENTS} elements"
            )),
            // Each reads or copies all of its arguments at every turn.
            Expr::Call(call) if loops == DEEPEST_LOOP && is_costly(&call.func_name, &call.args) => {
                Some("matches() and + are not offered in a loop within a loop".to_owned())
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
        Expr::Map(map) => map.entries.len(),
        Expr::Struct(of) => of.entries.len(),
        _ => 0,
    }
}

fn is_costly(function: &str, arguments: &[IdedExpr]) -> bool {
    // The loops themselves count, and collect, by adding to a variable that nobody can write.
    let is_own = || {
        arguments
            .first()
            .is_some_and(|first| matches!(&first.expr, Expr::Ident(name) if name.starts_with('@')))
    };
    function == "matches" || function == operators::ADD && !is_own()
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
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .map(once)
            .collect(),
        Expr::Comprehension(each) => vec![
            (&each.iter_range, false),
            (&each.accu_init, false),
            (&each.loop_cond, true),
            (&each.loop_step, true),
            // Of the loop's own variable too, so no part of its own.
            (&each.result, true),
        ],
        Expr::List(list) => list.elements.iter().map(once).collect(),
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| of_entry(&entry.expr))
            .map(once)
            .collect(),
        Expr::Struct(of) => of
            .entries
            .iter()
            .flat_map(|entry| of_entry(&entry.expr))
            .map(once)
            .collect(),
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
        Expr::Map(map) => {
            let entries = map.entries.iter_mut();
            entries
                .flat_map(|entry| of_entry_mut(&mut entry.expr))
                .collect()
        }
        Expr::Struct(of) => {
            let entries = of.entries.iter_mut();
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
