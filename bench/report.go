package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
)

// report is all that a run has found.
type report struct {
	Machine  machine            `json:"machine"`
	Versions map[string]string  `json:"versions"`
	Options  map[string]any     `json:"options"`
	Cells    []cell             `json:"cells"`
	Targets  []outcome          `json:"targets"`
	Notes    []string           `json:"notes"`
	Failures []string           `json:"failures"`
	proxies  []string           // in order of first appearance
	spreads  map[string]balance // of the probe's RPCs, by proxy
}

// machine is where it ran.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
}

func (r *report) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(r.Notes, text) {
		r.Notes = append(r.Notes, text)
	}
}

// fail makes the benchmark fail, once it has measured the rest.
func (r *report) fail(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(r.Failures, text) {
		r.Failures = append(r.Failures, text)
	}
}

// add keeps a cell, unless no run of it succeeded.
func (r *report) add(of row, proxy string, c cell) {
	if len(c.Runs) == 0 {
		return
	}
	c.Row, c.Proxy, c.Unit, c.Spread = of.name, proxy, of.unit, spreadOf(c.Runs)
	r.Cells = append(r.Cells, c)
	if of.tabled() && !slices.Contains(r.proxies, proxy) {
		r.proxies = append(r.proxies, proxy)
	}
}

func (r *report) cell(row, proxy string) (cell, bool) {
	for _, c := range r.Cells {
		if c.Row == row && c.Proxy == proxy {
			return c, true
		}
	}
	return cell{}, false
}

// target is what a row of ours has to reach.
type target struct {
	row  string
	to   string                        // ratio to this proxy; empty: the figure itself
	own  func(p proxy) (of, to string) // instead of to: ratio of two lanes of our own
	low  float64
	high float64
	text string
	aim  string
}

var targets = []target{
	{row: "1x1", to: "tcprelay", high: 1.1, text: "≤ 1.1 × tcprelay"},
	{row: "10x10", to: "nghttpx", high: 1.0, text: "≤ 1.0 × nghttpx", aim: "0.9"},
	{row: "50x100", to: "nghttpx", high: 0.5, text: "≤ 0.5 × nghttpx"},
	{row: "bulk", to: "nghttpx", high: 1.0, text: "≤ 1.0 × nghttpx"},
	{row: "idle", high: 8, text: "≤ 8 KiB", aim: "6.3"},
	{row: "idle-rpc", high: 10, text: "≤ 10 KiB", aim: "6.3"},
	{row: "idle-tls", high: 32, text: "≤ 32 KiB"},
	{row: "routes", own: tableNames, low: 0.9, high: 1.1, text: "flat: 0.9 to 1.1"},
	{row: "web-h1", to: "grpcwebproxy", high: 0.4, text: "≤ 0.4 × grpcwebproxy"},
	{row: "web-h2", own: relayNames, high: 3, text: "≤ 3 × its native relay"},
	{row: "rest", to: "grpcgateway", high: 0.7, text: "≤ 0.7 × grpc-gateway"},
}

// earlier is the name of the binary that -against gives.
const earlier = "earlier"

// againstTargets are what ours is held to beside an earlier build of itself.
var againstTargets = []target{
	{row: "1x1", to: earlier, high: 1.1, text: "≤ 1.1 × earlier"},
	{row: "10x10", to: earlier, high: 1.1, text: "≤ 1.1 × earlier"},
	{row: "50x100", to: earlier, high: 1.1, text: "≤ 1.1 × earlier"},
}

// targets are those of this run.
func (o *options) targets() []target {
	if o.against != "" {
		return againstTargets
	}
	return targets
}

// outcome is a target held against a proxy of ours.
type outcome struct {
	Row     string  `json:"row"`
	Proxy   string  `json:"proxy"`
	Target  string  `json:"target"`
	Aim     string  `json:"aim,omitempty"`
	Value   *spread `json:"value,omitempty"`
	Verdict verdict `json:"verdict"`
}

// hold judges one proxy of ours by every target whose row was asked for.
func (r *report) hold(p proxy, targets []target, wants func(string) bool) {
	for _, t := range targets {
		if !wants(t.row) {
			continue
		}
		o := outcome{Row: t.row, Proxy: p.name, Target: t.text, Aim: t.aim, Verdict: unmeasured}
		if values := r.values(t, p); len(values) > 0 {
			s := spreadOf(values)
			o.Value, o.Verdict = &s, judge(s, t.low, t.high)
		}
		r.Targets = append(r.Targets, o)
	}
}

// values are the figures of every run that the target is about.
func (r *report) values(t target, p proxy) []float64 {
	of, to := p.name, t.to
	if t.own != nil {
		of, to = t.own(p)
	}
	c, _ := r.cell(t.row, of)
	if to == "" {
		return slices.DeleteFunc(slices.Clone(c.Runs), math.IsNaN)
	}
	d, _ := r.cell(t.row, to)
	return ratios(c.Runs, d.Runs)
}

// missed says whether a target is missed beyond the spread.
func (r *report) missed() bool {
	return slices.ContainsFunc(r.Targets, func(o outcome) bool { return o.Verdict == miss })
}

// printer writes Markdown and remembers the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) row(fields ...string) { p.line("| %s |", strings.Join(fields, " | ")) }

func (p *printer) header(fields ...string) {
	p.row(fields...)
	p.line("|%s", strings.Repeat("---|", len(fields)))
}

// print writes everything as Markdown.
func (r *report) print(w io.Writer) error {
	p := &printer{w: w}
	p.line("## Proxies side by side\n")
	p.line("%s, %d cores, Linux %s. Median [least–most] of the runs.", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel)
	r.printFigures(p)
	r.printRatios(p, "nghttpx")
	r.printRatios(p, "tcprelay")
	r.printRatios(p, earlier)
	r.printLatency(p)
	r.printRoutes(p)
	r.printSpreads(p)
	r.printTranslated(p)
	r.printTargets(p)
	r.printList(p, "Notes", r.Notes)
	r.printList(p, "FAILED", r.Failures)
	return p.err
}

// present are the rows with a column in the tables of proxies.
func (r *report) present() []row {
	var found []row
	for _, of := range rows {
		if slices.ContainsFunc(r.Cells, func(c cell) bool { return c.Row == of.name && of.tabled() }) {
			found = append(found, of)
		}
	}
	return found
}

func (r *report) printFigures(p *printer) {
	present := r.present()
	if len(present) == 0 {
		return
	}
	p.line("")
	head := []string{"proxy"}
	for _, of := range present {
		head = append(head, of.title+", "+of.unit)
	}
	p.header(head...)
	for _, name := range r.proxies {
		fields := []string{name}
		for _, of := range present {
			fields = append(fields, r.figure(of.name, name))
		}
		p.row(fields...)
	}
}

func (r *report) figure(row, proxy string) string {
	c, ok := r.cell(row, proxy)
	if !ok {
		return "–"
	}
	return c.Spread.String()
}

// printRatios writes each figure as a multiple of the same run's of one proxy.
func (r *report) printRatios(p *printer, to string) {
	var present []row
	head := []string{"÷ " + to}
	for _, of := range r.present() {
		if _, ok := r.cell(of.name, to); ok {
			present = append(present, of)
			head = append(head, of.title)
		}
	}
	if len(present) == 0 {
		return
	}
	p.line("")
	p.header(head...)
	for _, name := range r.proxies {
		fields := []string{name}
		for _, of := range present {
			fields = append(fields, r.ratio(of.name, name, to))
		}
		p.row(fields...)
	}
}

func (r *report) ratio(row, of, to string) string {
	c, _ := r.cell(row, of)
	d, _ := r.cell(row, to)
	values := ratios(c.Runs, d.Runs)
	if len(values) == 0 {
		return "–"
	}
	return spreadOf(values).String()
}

// printLatency writes what the clients saw: medians over the runs.
func (r *report) printLatency(p *printer) {
	var present []row
	head := []string{"mean / p50 / p99 in µs (RPC/s)"}
	for _, of := range r.present() {
		if of.conns > 0 {
			present = append(present, of)
			head = append(head, of.title)
		}
	}
	if len(present) == 0 {
		return
	}
	p.line("")
	p.header(head...)
	for _, name := range r.proxies {
		fields := []string{name}
		for _, of := range present {
			fields = append(fields, r.latency(of.name, name))
		}
		p.row(fields...)
	}
}

func (r *report) latency(row, proxy string) string {
	c, ok := r.cell(row, proxy)
	if !ok {
		return "–"
	}
	median := func(field func(latency) float64) float64 {
		var values []float64
		for _, l := range c.Latency {
			values = append(values, field(l))
		}
		return spreadOf(values).Median
	}
	return fmt.Sprintf("%.0f / %.0f / %.0f (%.0f)",
		median(func(l latency) float64 { return l.Mean }), median(func(l latency) float64 { return l.P50 }),
		median(func(l latency) float64 { return l.P99 }), median(func(l latency) float64 { return l.Rate }))
}

func (r *report) printRoutes(p *printer) {
	first := true
	for _, c := range r.Cells {
		if c.Row != "routes" {
			continue
		}
		if first {
			p.line("")
			p.header("size of the table, 10 × 10", c.Unit)
			first = false
		}
		p.row(c.Proxy, c.Spread.String())
	}
}

// printSpreads writes how the probe's RPCs went to the backends: one that
// balances connections sends all RPCs of a connection to one.
func (r *report) printSpreads(p *printer) {
	if len(r.proxies) == 0 {
		return
	}
	p.line("")
	p.header("proxy", fmt.Sprintf("%d RPCs of one connection, by backend", probes), "trailers", "version")
	for _, name := range r.proxies {
		b, ok := r.spreads[name]
		if ok {
			p.row(name, fmt.Sprintf("%d : %d", b.SameConn[0], b.SameConn[1]), "all", r.Versions[name])
		}
	}
}

// printTranslated writes the rows of translated protocols one below the other: each
// has another pair of programs side by side.
func (r *report) printTranslated(p *printer) {
	first := true
	for _, of := range rows {
		for _, c := range r.Cells {
			if !of.translated() || c.Row != of.name {
				continue
			}
			if first {
				p.line("")
				p.header("translated", "proxy", of.unit, "sluice ÷ it", "mean / p50 / p99 in µs (RPC/s)", "version")
				first = false
			}
			p.row(of.title, c.Proxy, c.Spread.String(), r.ratio(of.name, "sluice", c.Proxy), r.latency(of.name, c.Proxy), r.Versions[c.Proxy])
		}
	}
}

func (r *report) printTargets(p *printer) {
	if len(r.Targets) == 0 {
		return
	}
	p.line("")
	p.header("row", "proxy", "target", "aim", "measured", "verdict")
	for _, o := range r.Targets {
		value := "–"
		if o.Value != nil {
			value = o.Value.String()
		}
		p.row(o.Row, o.Proxy, o.Target, o.Aim, value, string(o.Verdict))
	}
}

func (r *report) printList(p *printer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	p.line("\n%s:\n", title)
	for _, l := range lines {
		p.line("* %s", l)
	}
}

// write keeps the report, every run in it, as JSON.
func (r *report) write(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
