package main

import (
	"slices"
	"testing"
)

func TestSpreadOfTakesTheMiddle(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		want   spread
	}{
		{name: "odd", values: []float64{3, 1, 2}, want: spread{2, 1, 3}},
		{name: "even", values: []float64{4, 1, 2, 3}, want: spread{2.5, 1, 4}},
		{name: "one", values: []float64{5}, want: spread{5, 5, 5}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := spreadOf(tt.values); got != tt.want {
				t.Errorf("spreadOf = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRatiosPairsRuns(t *testing.T) {
	got := ratios([]float64{1, 4, 9}, []float64{2, 2, 0})
	if want := []float64{0.5, 2}; !slices.Equal(got, want) {
		t.Errorf("ratios = %v, want %v: a run of zero says nothing", got, want)
	}
}

func TestJudgeMissesOnlyBeyondTheSpread(t *testing.T) {
	tests := []struct {
		name      string
		s         spread
		low, high float64
		want      verdict
	}{
		{name: "below", s: spread{0.8, 0.7, 1.2}, high: 1, want: pass},
		{name: "at the bound", s: spread{1, 1, 1}, high: 1, want: pass},
		{name: "one run reaches it", s: spread{1.1, 0.99, 1.2}, high: 1, want: withinSpread},
		{name: "no run reaches it", s: spread{1.1, 1.01, 1.2}, high: 1, want: miss},
		{name: "too low for a flat one", s: spread{0.8, 0.7, 0.85}, low: 0.9, high: 1.1, want: miss},
		{name: "flat in one run", s: spread{0.8, 0.7, 0.95}, low: 0.9, high: 1.1, want: withinSpread},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := judge(tt.s, tt.low, tt.high); got != tt.want {
				t.Errorf("judge = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestSpreadPrintsThreeDigits(t *testing.T) {
	tests := []struct {
		s    spread
		want string
	}{
		{spread{123.4, 100, 200}, "123 [100–200]"},
		{spread{12.34, 9.876, 100.4}, "12.3 [9.88–100]"},
		{spread{5, 5, 5}, "5.00"},
	}
	for _, tt := range tests {
		if got := tt.s.String(); got != tt.want {
			t.Errorf("String of %v = %q, want %q", [3]float64{tt.s.Median, tt.s.Min, tt.s.Max}, got, tt.want)
		}
	}
}
