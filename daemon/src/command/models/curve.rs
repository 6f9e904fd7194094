//! The curve of a training, drawn in characters: readable without colour, 78 columns wide.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::symbols::Marker;
use ratatui_core::text::Line;
use ratatui_core::widgets::Widget;
use ratatui_widgets::chart::{Axis, Chart, Dataset, GraphType};
use serde_json::Value;

const WIDTH: u16 = 78;
const HEIGHT: u16 = 16;

/// The losses in a model's metrics over the updates; nothing if there are fewer than two looks.
pub(super) fn draw(metrics: &Value) -> Option<String> {
    let looks = metrics.get("curve")?.as_array()?;
    let line = |name: &str| -> Vec<(f64, f64)> {
        let point = |look: &Value| Some((look.get("update")?.as_f64()?, look.get(name)?.as_f64()?));
        looks.iter().filter_map(point).collect()
    };
    let (training, validation) = (line("training_loss"), line("validation_loss"));
    let last = validation.last()?.0;
    if validation.len() < 2 || last <= 0.0 {
        return None;
    }
    let naive: Vec<_> = metrics.get("naive_loss").and_then(Value::as_f64).into_iter().collect();
    let naive: Vec<_> = naive.into_iter().flat_map(|loss| [(0.0, loss), (last, loss)]).collect();
    let losses = || training.iter().chain(&validation).chain(&naive).map(|(_, loss)| *loss);
    let (least, most) = (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
    // A loss falls fast and then slowly: on a linear scale the slow part would be one line.
    let log = least > 0.0;
    let up = |loss: f64| if log { loss.ln() } else { loss };
    let down = |height: f64| if log { height.exp() } else { height };
    let scaled = |points: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
        points.into_iter().map(|(update, loss)| (update, up(loss))).collect()
    };
    // A flat line stands in the middle.
    let room = if most > least { (up(most) - up(least)) * 0.05 } else { 1.0 };
    let (low, high) = (up(least) - room, up(most) + room);
    let label = |height: f64| Line::from(format!("{:.4}", down(height)));
    let (naive, training, validation) = (scaled(naive), scaled(training), scaled(validation));
    let drawn = |marker, points| {
        Dataset::default().marker(Marker::Custom(marker)).graph_type(GraphType::Line).data(points)
    };
    let chart = Chart::new(vec![drawn('-', &naive), drawn('.', &training), drawn('*', &validation)])
        .legend_position(None)
        .x_axis(Axis::default().bounds([0.0, last]).labels([
            Line::from("0"),
            Line::from(format!("{:.0}", last / 2.0)),
            Line::from(format!("{last:.0} updates")),
        ]))
        .y_axis(Axis::default().bounds([low, high]).labels([
            label(low),
            label((low + high) / 2.0),
            label(high),
        ]));
    let area = Rect::new(0, 0, WIDTH, HEIGHT);
    let mut buffer = Buffer::empty(area);
    chart.render(area, &mut buffer);
    let mut text = "loss: * validation   . training   - naive forecast".to_owned();
    for row in buffer.content().chunks(usize::from(WIDTH)) {
        let row: String = row.iter().map(|cell| cell.symbol()).collect();
        text.push('\n');
        text.push_str(row.trim_end());
    }
    Some(text)
}
