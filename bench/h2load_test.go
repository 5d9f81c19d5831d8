package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestParseTallyReadsH2load(t *testing.T) {
	tests := []struct {
		name string
		file string
		want tally
		ok   bool // 200 requests, each answered with 105 bytes
	}{
		{
			name: "all succeeded", file: "h2load.out", ok: true,
			want: tally{Total: 200, Started: 200, Done: 200, Succeeded: 200, Status2xx: 200, DataBytes: 21000},
		},
		{
			name: "not found", file: "h2load_404.out",
			want: tally{Total: 10, Started: 10, Done: 10, Failed: 10, DataBytes: 1470},
		},
		{
			name: "nobody listens", file: "h2load_refused.out",
			want: tally{Total: 10, Failed: 10, Errored: 10},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTally(golden(t, tt.file))
			if err != nil || got != tt.want {
				t.Errorf("parseTally = %+v, %v, want %+v", got, err, tt.want)
			}
			if err := got.check(200, 105); (err == nil) != tt.ok {
				t.Errorf("check = %v, want success %v", err, tt.ok)
			}
		})
	}
}

func TestParseTallyRefusesOtherOutput(t *testing.T) {
	whole := golden(t, "h2load.out")
	for _, text := range [][]byte{nil, []byte("usage: h2load"), whole[:len(whole)/2]} {
		if got, err := parseTally(text); err == nil {
			t.Errorf("parseTally(%q) = %+v, want an error", text, got)
		}
	}
}

func TestTallyCheckWantsWholeBodies(t *testing.T) {
	short := tally{Total: 2, Started: 2, Done: 2, Succeeded: 2, Status2xx: 2, DataBytes: 209}
	if err := short.check(2, 105); err == nil {
		t.Error("a body that lacks a byte passes")
	}
}

func TestParseLatencyRanks(t *testing.T) {
	tests := []struct {
		name  string
		log   string
		want  latency
		fails bool
	}{
		{
			name: "three requests, one column more than today",
			log:  "1000000\t200\t100\tx\n1000010\t200\t300\tx\n1001000\t200\t200\tx\n",
			want: latency{Mean: 200, P50: 200, P99: 300, Rate: 2500},
		},
		{name: "one request", log: "5\t200\t10\n", want: latency{Mean: 10, P50: 10, P99: 10, Rate: 1e5}},
		{name: "empty", log: "", fails: true},
		{name: "cut short", log: "1000\t200\t10\n1000\t200", fails: true},
		{name: "no number", log: "1000\t200\tsoon\n", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseLatency([]byte(tt.log))
			if (err != nil) != tt.fails || got != tt.want {
				t.Errorf("parseLatency = %+v, %v, want %+v, error %v", got, err, tt.want, tt.fails)
			}
		})
	}
}

// The golden log's figures were computed by sort and awk.
func TestParseLatencyReadsH2loadLog(t *testing.T) {
	got, err := parseLatency(golden(t, "h2load.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Mean != 397.175 || got.P50 != 366 || got.P99 != 549 {
		t.Errorf("parseLatency = %+v, want mean 397.175, p50 366, p99 549", got)
	}
}

func TestRankIsNearest(t *testing.T) {
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(i + 1)
	}
	tests := []struct {
		name    string
		times   []int64
		percent int
		want    int64
	}{
		{name: "median of 100", times: hundred, percent: 50, want: 50},
		{name: "99th of 100", times: hundred, percent: 99, want: 99},
		{name: "99th of 3", times: []int64{1, 2, 3}, percent: 99, want: 3},
		{name: "median of 1", times: []int64{7}, percent: 50, want: 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := rank(slices.Clone(tt.times), tt.percent); got != tt.want {
				t.Errorf("rank = %d, want %d", got, tt.want)
			}
		})
	}
}
