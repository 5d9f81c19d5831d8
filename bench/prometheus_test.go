package main

import (
	"math"
	"testing"
)

func TestParsePageSums(t *testing.T) {
	p, err := parsePage(golden(t, "metrics.prom"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		series string
		match  []string
		want   float64
	}{
		{name: "every label", series: "sluice_rpc_ended_total", want: 20002},
		{name: "one code", series: "sluice_rpc_ended_total", match: []string{"code", "OK"}, want: 20000},
		{name: "two labels", series: "sluice_rpc_ended_total", match: []string{"route", "", "code", "UNIMPLEMENTED"}, want: 1},
		{name: "an exponent", series: "sluice_rpc_path_total", match: []string{"path", "relay"}, want: 20002},
		{name: "a name that begins another", series: "sluice_rpc_seconds", want: 0},
		{name: "no labels", series: "go_goroutines", want: 12},
		{name: "with a timestamp", series: "process_start_time_seconds", want: 1795294038},
		{name: "a label that is missing", series: "go_goroutines", match: []string{"code", "OK"}, want: 0},
		{name: "nothing", series: "nothing", want: 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.sum(tt.series, tt.match...); got != tt.want {
				t.Errorf("sum = %v, want %v", got, tt.want)
			}
		})
	}
	if got := p.sum("odd", "text", "a \"quoted\\\" }, line\nbreak", "other", "1"); !math.IsNaN(got) {
		t.Errorf("the value behind escaped text is %v, want NaN", got)
	}
}

func TestParsePageRefusesDamage(t *testing.T) {
	for _, text := range []string{"name", "name{a=\"b\" 1", "name{a} 1", "name{a=\"b", "name x", "{a=\"b\"} 1", "name{a=\"b\"}"} {
		if p, err := parsePage([]byte(text)); err == nil {
			t.Errorf("parsePage(%q) = %v, want an error", text, p)
		}
	}
}

func TestReadCountsSeparatesPathsAndCodes(t *testing.T) {
	p, err := parsePage(golden(t, "metrics.prom"))
	if err != nil {
		t.Fatal(err)
	}
	want := counts{ok: 20000, other: 2, relay: 20002}
	if got := readCounts(p, ""); got != want {
		t.Errorf("readCounts = %+v, want %+v", got, want)
	}
	spoken := want
	spoken.spoken, spoken.otherwise = 3, 19999
	if got := readCounts(p, "rest"); got != spoken {
		t.Errorf("readCounts of REST = %+v, want %+v", got, spoken)
	}
	if got := want.minus(counts{ok: 19000, other: 2, relay: 19002}); got != (counts{ok: 1000, relay: 1000}) {
		t.Errorf("minus = %+v, want 1000 ok by relay", got)
	}
}
