package main

import (
	"fmt"
	"testing"
)

func TestOptionsCompareWithAnEarlierBinary(t *testing.T) {
	tests := []struct {
		name        string
		args        []string
		wantProxies string
		wantOnly    string
	}{
		{"no other binary", nil, "[]", "[]"},
		{"the two alone", []string{"-against", "old"}, "[sluice earlier=old]", "[1x1 10x10 50x100]"},
		{"a row", []string{"-against", "old", "-only", "bulk"}, "[sluice earlier=old]", "[bulk]"},
		{"and a peer", []string{"-against", "old", "-proxies", "sluice,nginx"}, "[sluice nginx earlier=old]", "[1x1 10x10 50x100]"},
	}
	for _, test := range tests {
		o, err := parseOptions(test.args)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if got := fmt.Sprint(o.proxies); got != test.wantProxies {
			t.Errorf("%s: proxies %s, want %s", test.name, got, test.wantProxies)
		}
		if got := fmt.Sprint(o.only); got != test.wantOnly {
			t.Errorf("%s: rows %s, want %s", test.name, got, test.wantOnly)
		}
	}
}

func TestReportHoldsTheRatioToAnEarlierBinary(t *testing.T) {
	runs := func(proxy string, v ...float64) cell {
		return cell{Row: "10x10", Proxy: proxy, Runs: v}
	}
	only := func(row string) bool { return row == "10x10" }
	for _, test := range []struct {
		name string
		ours []float64
		want verdict
	}{
		{"as before", []float64{10.4, 10.2}, pass},
		{"a third more", []float64{13, 13.5}, miss},
	} {
		r := report{Cells: []cell{runs("sluice", test.ours...), runs(earlier, 10, 10)}}
		r.hold(proxy{name: "sluice"}, againstTargets, only)
		if len(r.Targets) != 1 || r.Targets[0].Verdict != test.want {
			t.Errorf("%s: %+v, want %s", test.name, r.Targets, test.want)
		}
	}
}
