package hostile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/store"
)

// nodeConfig is what a gateway under attack is started with.
type nodeConfig struct {
	Gateway     gateway.Config
	Resources   string   // YAML
	Origins     []string // whose pages may call every GRPCRoute
	Descriptors uint64   // the process's limit on open files; 0 = as it is
}

// nodeVariable holds the configuration of a test binary that is to be a gateway.
const nodeVariable = "SLUICE_HOSTILE_NODE"

// reading is what a gateway's process has used, or uses now.
type reading struct {
	CPU        time.Duration // user and system, since the start
	Memory     int64         // resident and anonymous, bytes
	Peak       int64         // the most of it since the last reset
	Heap       int64         // live objects after a collection, bytes
	Goroutines int
	Files      int
}

// node is a running gateway, seen from outside.
type node struct {
	addr    string
	control string // its metrics and readings; "" when it runs in this process
	scrape  func() (string, error)
	logged  *lockedBuffer
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// assemble makes a gateway and returns it with what runs it.
func assemble(cfg *nodeConfig, log io.Writer) (*gateway.Gateway, error) {
	set, faults := store.Parse("test.yaml", []byte(cfg.Resources))
	if len(faults) > 0 {
		return nil, faults
	}
	for _, route := range set.GRPCRoutes {
		for i := range route.Spec.Rules {
			if len(cfg.Origins) > 0 {
				route.Spec.Rules[i].Treatment.CORS = &store.CORS{AllowOrigins: cfg.Origins}
			}
		}
	}
	if cfg.Gateway.Listen.Address == "" {
		cfg.Gateway.Listen.Address = "127.0.0.1:0"
	}
	cfg.Gateway.Grace = -1
	g, err := gateway.New(cfg.Gateway, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		return nil, err
	}
	return g, g.Apply(set)
}

// startHere runs a gateway in this process until the test is over.
func startHere(t testing.TB, cfg nodeConfig) *node {
	t.Helper()
	n := &node{logged: &lockedBuffer{}}
	g, err := assemble(&cfg, n.logged)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("gateway ended: %v", err)
			}
		case <-time.After(patience):
			t.Errorf("gateway did not end within %v of being told to", patience)
		}
	})
	n.addr = g.Addr().String()
	n.scrape = func() (string, error) {
		w := httptest.NewRecorder()
		g.Metrics().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return w.Body.String(), nil
	}
	return n
}

// startApart runs a gateway in a process of its own until the test is over.
func startApart(t testing.TB, cfg nodeConfig) *node {
	t.Helper()
	encoded, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{logged: &lockedBuffer{}}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), nodeVariable+"="+string(encoded))
	cmd.Stderr = n.logged
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stop(t, cmd, stdin) })
	if _, err := fmt.Fscan(bufio.NewReader(stdout), &n.addr, &n.control); err != nil {
		t.Fatalf("gateway did not come up: %v\n%s", err, n.logged)
	}
	n.scrape = func() (string, error) { return n.ask("metrics") }
	return n
}

// stop ends the gateway's process, which must end by itself and in order.
func (n *node) stop(t testing.TB, cmd *exec.Cmd, stdin io.Closer) {
	stdin.Close()
	kill := time.AfterFunc(2*patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		log := n.logged.String()
		t.Errorf("gateway ended: %v\n…%s", err, log[max(0, len(log)-8000):])
	}
}

// ask reads one page of the gateway's control port.
func (n *node) ask(page string) (string, error) {
	res, err := control.Get("http://" + n.control + "/" + page)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

var control = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

// read returns the process's figures; collected asks for a collection first.
func (n *node) read(t testing.TB, page string) (r reading) {
	t.Helper()
	body, err := n.ask(page)
	if err == nil {
		err = json.Unmarshal([]byte(body), &r)
	}
	if err != nil {
		t.Fatalf("reading the gateway's figures: %v\n%s", err, n.logged)
	}
	return r
}

// counters are a scrape: values by name and labels, as in
// `sluice_conn_closed_total{reason="pings",side="downstream"}`.
type counters map[string]float64

func (n *node) counters(t testing.TB) counters {
	t.Helper()
	text, err := n.scrape()
	if err != nil {
		t.Fatalf("reading metrics: %v\n%s", err, n.logged)
	}
	c := make(counters)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			c[line[:i]] = v
		}
	}
	return c
}

func closed(side, reason string) string {
	return fmt.Sprintf("sluice_conn_closed_total{reason=%q,side=%q}", reason, side)
}

func rejected(side, reason string) string {
	return fmt.Sprintf("sluice_stream_rejected_total{reason=%q,side=%q}", reason, side)
}

func outcome(label string) string { return fmt.Sprintf("sluice_rpc_outcome_total{outcome=%q}", label) }

// since is what has been added.
func (c counters) since(before counters) counters {
	d := make(counters)
	for k, v := range c {
		if v != before[k] {
			d[k] = v - before[k]
		}
	}
	return d
}

// beNode is the test binary as a gateway: it serves until its input ends.
func beNode(encoded string) error {
	var cfg nodeConfig
	if err := json.Unmarshal([]byte(encoded), &cfg); err != nil {
		return err
	}
	if cfg.Descriptors > 0 {
		limit := syscall.Rlimit{Cur: cfg.Descriptors, Max: cfg.Descriptors}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
	}
	g, err := assemble(&cfg, os.Stderr)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	debug.SetGCPercent(400) // as the program does
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go serveControl(ctx, l, g)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println(g.Addr(), l.Addr())
	return g.Run(ctx)
}

// serveControl answers what only the process itself can tell.
func serveControl(ctx context.Context, l net.Listener, g *gateway.Gateway) {
	var peak atomic.Int64
	go watchMemory(ctx, &peak)
	figures := func(w http.ResponseWriter) {
		r := figuresNow()
		r.Peak = peak.Load()
		json.NewEncoder(w).Encode(r)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", g.Metrics())
	mux.HandleFunc("/figures", func(w http.ResponseWriter, _ *http.Request) { figures(w) })
	mux.HandleFunc("/collected", func(w http.ResponseWriter, _ *http.Request) {
		debug.FreeOSMemory()
		figures(w)
	})
	mux.HandleFunc("/reset", func(w http.ResponseWriter, _ *http.Request) {
		debug.FreeOSMemory()
		peak.Store(residentMemory())
		figures(w)
	})
	http.Serve(l, mux)
}

// watchMemory notes the most memory that the process has.
func watchMemory(ctx context.Context, peak *atomic.Int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if m := residentMemory(); m > peak.Load() {
			peak.Store(m)
		}
	}
}

func figuresNow() reading {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	files, _ := os.ReadDir("/proc/self/fd")
	return reading{
		CPU:    time.Duration(u.Utime.Nano() + u.Stime.Nano()),
		Memory: residentMemory(), Heap: int64(m.HeapAlloc + m.StackInuse),
		Goroutines: runtime.NumGoroutine(), Files: len(files),
	}
}

// residentMemory is what the process's own pages take: resident, less what is
// shared with files.
func residentMemory() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident, shared int64
	fmt.Sscan(string(b), &size, &resident, &shared)
	return (resident - shared) * int64(os.Getpagesize())
}

// errNode is what a gateway's process ends with.
func errNode(err error) int {
	if err == nil || errors.Is(err, context.Canceled) {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}
