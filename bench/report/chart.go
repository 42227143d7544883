package main

import (
	"bytes"
	"image/color"
	"math"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/m2mauth/m2mauth/bench"
)

// Colours that are readable on light and on dark, since the background is
// neither: those of text and lines, and of the contenders from the floor on.
var (
	grey    = color.RGBA{0x80, 0x80, 0x80, 0xff}
	colours = []color.RGBA{
		{0x80, 0x80, 0x80, 0xff}, {0x2f, 0x9e, 0x44, 0xff}, {0xe0, 0x7b, 0x22, 0xff}, {0x3b, 0x82, 0xd6, 0xff},
		{0xc2, 0x4f, 0x9a, 0xff}, {0x8f, 0x6f, 0xd8, 0xff}, {0xb0, 0x8d, 0x2a, 0xff}, {0x2a, 0xa1, 0xa8, 0xff},
	}
)

// lowest is where the bars begin: a logarithmic axis has no zero.
const lowest = 0.0005

// bars are one contender's. plotter.BarChart begins at 0 and cannot be logarithmic.
type bars struct {
	values []float64
	offset vg.Length // from the middle of the group
	colour color.Color
}

const barWidth = 10

func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for i, value := range b.values {
		left, top := x(float64(i))+b.offset, y(max(value, lowest))
		c.FillPolygon(b.colour, []vg.Point{
			{X: left, Y: y(lowest)}, {X: left, Y: top}, {X: left + barWidth - 1, Y: top}, {X: left + barWidth - 1, Y: y(lowest)},
		})
	}
}

func (b bars) DataRange() (xmin, xmax, ymin, ymax float64) {
	ymax = 1
	for _, value := range b.values {
		ymax = math.Max(ymax, value)
	}
	return -0.5, float64(len(b.values)), lowest, 1.2 * ymax
}

// Thumbnail draws the legend's.
func (b bars) Thumbnail(c *draw.Canvas) {
	c.FillPolygon(b.colour, []vg.Point{c.Min, {X: c.Min.X, Y: c.Max.Y}, c.Max, {X: c.Max.X, Y: c.Min.Y}})
}

// writeChart draws the rows of the first algorithm.
func writeChart(path string, rows []row) error {
	p := plot.New()
	p.BackgroundColor = nil // readable on light and dark
	p.Title.Text = "Cost of a request, " + bench.Algorithms[0]
	p.Y.Label.Text = "bare check of a signature = 1 (logarithmic scale)"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Top = true
	p.Legend.YOffs = vg.Points(-4)
	var labels []string
	for i, name := range contenders() {
		b := bars{offset: barWidth * (vg.Length(i) - vg.Length(len(contenders()))/2), colour: colours[i]}
		labels = nil
		for _, r := range rows {
			if r.algorithm == bench.Algorithms[0] {
				labels = append(labels, r.workload)
				b.values = append(b.values, r.cost[name].ratio(r.cost[bench.Floor]).Center)
			}
		}
		p.Add(b)
		p.Legend.Add(name, b)
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	grid.Horizontal.Color = color.RGBA{0x80, 0x80, 0x80, 0x40}
	p.Add(grid)
	p.NominalX(labels...)
	for _, style := range []*draw.TextStyle{&p.Title.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Y.Label.TextStyle, &p.Legend.TextStyle} {
		style.Color = grey
	}
	for _, line := range []*draw.LineStyle{&p.X.LineStyle, &p.Y.LineStyle, &p.X.Tick.LineStyle, &p.Y.Tick.LineStyle} {
		line.Color = grey
	}
	svg, err := p.WriterTo(vg.Points(760), vg.Points(320), "svg")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := svg.WriteTo(&b); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
