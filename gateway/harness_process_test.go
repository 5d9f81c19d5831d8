package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"google.golang.org/grpc"

	"sluice/gateway/h2"
	"sluice/gateway/listen"
	"sluice/store"
)

// roleVariable tells the test binary which process to be.
const roleVariable = "SLUICE_TEST_ROLE"

// order is what a test asks of a process, a line of JSON each.
type order struct {
	Apply   string     `json:",omitempty"` // resources
	Limits  *h2.Limits `json:",omitempty"` // only the first order
	Metrics bool       `json:",omitempty"`
	Memory  bool       `json:",omitempty"` // after a collection
	Ballast *int       `json:",omitempty"` // MiB that the process holds from now on
}

// report is the answer.
type report struct {
	Addr       string
	Err        string
	Metrics    string
	Heap       uint64 // bytes in use after a collection
	Goroutines int
}

// play is the main function of the processes that tests start. It ends with its
// standard input.
func play(role string) (code int) {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var err error
	switch role {
	case "gateway":
		err = playGateway(in, out)
	case "backend":
		err = playBackend(in, out)
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func playGateway(in *json.Decoder, out *json.Encoder) error {
	var first order
	if err := in.Decode(&first); err != nil {
		return err
	}
	cfg := Config{Listen: listen.Config{Address: "127.0.0.1:0"}, Grace: -1}
	if first.Limits != nil {
		cfg.Limits = *first.Limits
	}
	g, err := New(cfg, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	var ballast []byte
	for o := first; err == nil; err = in.Decode(&o) {
		r := report{Addr: g.Addr().String()}
		if o.Apply != "" {
			set, faults := store.Parse("order", []byte(o.Apply))
			if len(faults) > 0 {
				r.Err = faults.Error()
			} else if err := g.Apply(set); err != nil {
				r.Err = err.Error()
			}
		}
		if o.Ballast != nil {
			ballast = bytes.Repeat([]byte{1}, *o.Ballast<<20)
		}
		if o.Metrics {
			w := httptest.NewRecorder()
			g.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			r.Metrics = w.Body.String()
		}
		if o.Memory {
			r.Heap, r.Goroutines = inUse()
		}
		if err := out.Encode(r); err != nil {
			return err
		}
		o = order{}
	}
	runtime.KeepAlive(ballast)
	cancel()
	return <-ended
}

// inUse is the memory that is left after a collection, stacks included.
func inUse() (heap uint64, goroutines int) {
	debug.FreeOSMemory()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse, runtime.NumGoroutine()
}

// playBackend serves RPCs: /x/Slow takes 20 ms, /x/Source streams, and any other is
// an echo.
func playBackend(in *json.Decoder, out *json.Encoder) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b := &backend{name: "process", release: make(chan struct{}), nonces: make(map[string]int), more: map[string]answer{
		"Slow": func(b *backend, st grpc.ServerStream) error {
			<-time.After(20 * time.Millisecond)
			return echo(b, st)
		},
	}}
	b.grpc = grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(b.handle), grpc.MaxConcurrentStreams(5000))
	go b.grpc.Serve(l)
	defer b.grpc.Stop()
	var o order
	for err = in.Decode(&o); err == nil; err = in.Decode(&o) {
		if err := out.Encode(report{Addr: l.Addr().String()}); err != nil {
			return err
		}
	}
	return nil
}

// process is a child of the test.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	send *json.Encoder
	from *json.Decoder
	addr string
}

// startProcess runs the test binary in a role until the test ends.
func startProcess(t testing.TB, role string, first order) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.send, p.from = json.NewEncoder(p.in), json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.in.Close()
		stuck := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("process %s: %v", role, err)
		}
		stuck.Stop()
	})
	p.addr = p.ask(first).Addr
	return p
}

// ask gives an order and waits for the report.
func (p *process) ask(o order) (r report) {
	p.t.Helper()
	if err := p.send.Encode(o); err != nil {
		p.t.Fatal(err)
	}
	if err := p.from.Decode(&r); err != nil {
		p.t.Fatalf("process ended: %v", err)
	}
	if r.Err != "" {
		p.t.Fatal(r.Err)
	}
	return r
}

// metric is node.metric of a process.
func (p *process) metric(name string, pairs ...string) float64 {
	p.t.Helper()
	return sample(p.t, readMetrics(p.t, p.ask(order{Metrics: true}).Metrics), name, pairs...)
}
