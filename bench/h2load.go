package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// tally is what h2load says at its end.
type tally struct {
	Total, Started, Done, Succeeded, Failed, Errored, Timeout int

	Status2xx int
	DataBytes int64 // payload of DATA frames received
}

var (
	requestsLine = regexp.MustCompile(`(?m)^requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$`)
	statusLine   = regexp.MustCompile(`(?m)^status codes: (\d+) 2xx, `)
	trafficLine  = regexp.MustCompile(`(?m)^traffic: .* \((\d+)\) data$`)
)

// parseTally reads h2load's standard output.
func parseTally(out []byte) (tally, error) {
	r := requestsLine.FindSubmatch(out)
	s := statusLine.FindSubmatch(out)
	d := trafficLine.FindSubmatch(out)
	if r == nil || s == nil || d == nil {
		return tally{}, errors.New("h2load: no line of requests, status codes and traffic in its output")
	}
	var numbers [9]int
	for i, field := range slices.Concat(r[1:], s[1:], d[1:]) {
		n, err := strconv.Atoi(string(field))
		if err != nil {
			return tally{}, fmt.Errorf("h2load: %w", err)
		}
		numbers[i] = n
	}
	n := numbers
	return tally{n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], int64(n[8])}, nil
}

// check fails unless every one of the requests asked for was answered with its
// whole body. h2load exits with 0 even when it could not connect.
func (t tally) check(requests, body int) error {
	whole := tally{Total: requests, Started: requests, Done: requests, Succeeded: requests, Status2xx: requests, DataBytes: int64(requests) * int64(body)}
	if t != whole {
		return fmt.Errorf("h2load got %+v, want %+v", t, whole)
	}
	return nil
}

// latency sums up the times from request to end of response, in microseconds.
type latency struct {
	Mean float64 `json:"mean_us"`
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`

	// Rate is RPCs per second between the first request and the last reply.
	Rate float64 `json:"rpc_per_s"`
}

// parseLatency reads the log that h2load writes with --log-file: start time in
// microseconds since the epoch, status code, microseconds until the end of the
// response, and maybe more columns.
func parseLatency(log []byte) (latency, error) {
	var times []int64
	var sum, first, last int64
	for line := range bytes.Lines(log) {
		fields := bytes.Fields(line)
		if len(fields) < 3 {
			return latency{}, fmt.Errorf("h2load log line %q: want three columns", line)
		}
		start, err1 := strconv.ParseInt(string(fields[0]), 10, 64)
		took, err2 := strconv.ParseInt(string(fields[2]), 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return latency{}, fmt.Errorf("h2load log line %q: %w", line, err)
		}
		if first == 0 || start < first {
			first = start
		}
		last = max(last, start+took)
		sum += took
		times = append(times, took)
	}
	if len(times) == 0 {
		return latency{}, errors.New("h2load log: no request in it")
	}
	slices.Sort(times)
	n := float64(len(times))
	return latency{
		Mean: float64(sum) / n,
		P50:  float64(rank(times, 50)),
		P99:  float64(rank(times, 99)),
		Rate: n * 1e6 / float64(max(last-first, 1)),
	}, nil
}

// rank is the nearest-rank percentile of sorted times.
func rank(sorted []int64, percent int) int64 {
	return sorted[(len(sorted)*percent+99)/100-1]
}

// load is one invocation of h2load.
type load struct {
	addr           string
	speech         *speech
	conns, streams int
	requests       int
	body           int // bytes of each response
}

// h2loadTimeout bounds one invocation: the slowest peer needs a tenth of it.
const h2loadTimeout = 2 * time.Minute

// run puts the load on the proxy and returns what the clients saw.
func (b *bench) run(l load) (latency, error) {
	out, err := os.CreateTemp(b.dir, "h2load-*.out")
	if err != nil {
		return latency{}, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	// h2load appends to its log: each invocation has its own.
	log := out.Name() + ".tsv"
	defer os.Remove(log)

	argv, err := b.loadCommand(l, log)
	if err != nil {
		return latency{}, err
	}
	p, err := b.launch.start(command{name: "h2load", argv: argv, cpu: b.loadCPU, stdout: out})
	if err != nil {
		return latency{}, err
	}
	if err := p.wait(b.ctx, h2loadTimeout); err != nil {
		return latency{}, p.complain(err)
	}
	return readLoad(l, out.Name(), log)
}

// loadCommand is h2load with the requests of a speech, the same whatever the proxy.
func (b *bench) loadCommand(l load, log string) ([]string, error) {
	argv := []string{
		b.tools["h2load"],
		"-n", strconv.Itoa(l.requests), "-c", strconv.Itoa(l.conns), "-m", strconv.Itoa(l.streams),
		"--log-file", log,
	}
	if l.speech.http1 {
		argv = append(argv, "--h1")
	}
	if l.speech.data != nil {
		file, err := b.requestFile(l.speech)
		if err != nil {
			return nil, err
		}
		argv = append(argv, "-d", file)
	}
	for _, f := range l.speech.fields {
		argv = append(argv, "-H", f[0]+": "+f[1])
	}
	return append(argv, "http://"+l.addr+l.speech.path), nil
}

// requestFile holds the body of a request, which h2load takes from a file only.
func (b *bench) requestFile(s *speech) (string, error) {
	if file, ok := b.requests[s]; ok {
		return file, nil
	}
	file := filepath.Join(b.dir, fmt.Sprintf("request-%d", len(b.requests)))
	if err := os.WriteFile(file, s.data, 0o600); err != nil {
		return "", err
	}
	b.requests[s] = file
	return file, nil
}

func readLoad(l load, out, log string) (latency, error) {
	said, err := os.ReadFile(out)
	if err != nil {
		return latency{}, err
	}
	t, err := parseTally(said)
	if err != nil {
		return latency{}, err
	}
	if err := t.check(l.requests, l.body); err != nil {
		return latency{}, err
	}
	rows, err := os.ReadFile(log)
	if err != nil {
		return latency{}, err
	}
	return parseLatency(rows)
}
