// Bench measures sluice beside other proxies on this machine: CPU time per RPC,
// latency, CPU time per GB and memory per idle connection. README.md says how
// and how to read what it prints.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The main goroutine stays on the main thread: see launcher.
func init() { runtime.LockOSThread() }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		switch args[0] { // what the benchmark starts itself as; neither forks
		case "relay":
			runtime.UnlockOSThread()
			return relayMain(args[1:])
		case "hold":
			runtime.UnlockOSThread()
			return holdMain(args[1:])
		case "echo":
			runtime.UnlockOSThread()
			return echoMain(args[1:])
		}
	}
	opts, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, opts.timeout)
	defer cancel()
	return runBench(ctx, opts)
}

// options are the command line.
type options struct {
	quick    bool
	only     []string
	proxies  []string
	runs     int
	idleRuns int
	idleWait time.Duration
	conns    int
	json     string
	sluice   string
	against  string // another binary of sluice, to be measured beside it
	keep     bool
	strict   bool
	timeout  time.Duration

	proxyCPU, loadCPU int
	backendStreams    int
}

func parseOptions(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.quick, "quick", false, "a minute or two: 3 runs of a tenth of the requests, 2,000 idle connections for 3 s")
	only := f.String("only", "", "comma-separated rows: "+strings.Join(rowNames(), ", "))
	proxies := f.String("proxies", "", "comma-separated proxies: nginx, haproxy, nghttpx, tcprelay, tcpcopy, caddy, traefik, envoy, grpcwebproxy, grpcgateway, sluice, or NAME=PATH for another binary of sluice")
	f.IntVar(&o.runs, "n", 7, "runs of each proxy in each row under load")
	f.IntVar(&o.idleRuns, "idle-n", 0, "runs of each idle row (0: as -n)")
	f.DurationVar(&o.idleWait, "idle-wait", 30*time.Second, "silence before the memory is read")
	f.IntVar(&o.conns, "idle-conns", 10_000, "idle connections")
	f.StringVar(&o.json, "json", "", "write every run to this file")
	f.StringVar(&o.sluice, "sluice", "", "binary to measure (default: built from the checkout)")
	f.StringVar(&o.against, "against", "", "binary of an earlier sluice to alternate with: only the two, in rows 1x1, 10x10 and 50x100 unless -only and -proxies say otherwise")
	f.BoolVar(&o.keep, "keep", false, "keep the temporary files, with what the proxies wrote")
	f.BoolVar(&o.strict, "strict", false, "exit with 1 when a target is missed beyond the spread")
	f.DurationVar(&o.timeout, "timeout", 90*time.Minute, "of the whole run")
	f.IntVar(&o.proxyCPU, "proxy-cpu", 0, "core of the proxy")
	f.IntVar(&o.loadCPU, "load-cpu", 1, "core of load and backends")
	f.IntVar(&o.backendStreams, "backend-streams", 100, "MAX_CONCURRENT_STREAMS of the backends")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.only, o.proxies = list(*only), list(*proxies)
	o.compare()
	set := map[string]bool{}
	f.Visit(func(f *flag.Flag) { set[f.Name] = true })
	o.hurry(set)
	return o, o.validate(f.Args())
}

// compare adds the earlier binary, and makes the run one of the two alone where nothing
// else is asked for.
func (o *options) compare() {
	if o.against == "" {
		return
	}
	if len(o.proxies) == 0 {
		o.proxies = []string{"sluice"}
	}
	o.proxies = append(o.proxies, earlier+"="+o.against)
	if len(o.only) == 0 {
		o.only = []string{"1x1", "10x10", "50x100"}
	}
}

// hurry makes what was not set by hand short.
func (o *options) hurry(set map[string]bool) {
	if o.quick && !set["n"] {
		o.runs = 3
	}
	if o.quick && !set["idle-n"] {
		o.idleRuns = 1
	}
	if o.quick && !set["idle-wait"] {
		o.idleWait = 3 * time.Second
	}
	if o.quick && !set["idle-conns"] {
		o.conns = 2000
	}
	if o.idleRuns == 0 {
		o.idleRuns = o.runs
	}
}

func (o *options) validate(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("argument %q: want flags only", rest[0])
	}
	for _, name := range o.only {
		if !slices.Contains(rowNames(), name) {
			return fmt.Errorf("-only: %q is no row, want some of %s", name, strings.Join(rowNames(), ", "))
		}
	}
	if o.runs < 1 || o.idleRuns < 1 || o.conns < 1 {
		return errors.New("-n, -idle-n and -idle-conns: want 1 or more")
	}
	return nil
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

func rowNames() []string {
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	return names
}

func (o *options) wants(row string) bool {
	return len(o.only) == 0 || slices.Contains(o.only, row)
}

// wantsAny says whether any of these rows is to be measured.
func (o *options) wantsAny(of func(row) bool) bool {
	return slices.ContainsFunc(rows, func(r row) bool { return of(r) && o.wants(r.name) })
}

// scaled is the number of requests in one run.
func (o *options) scaled(requests int) int {
	if o.quick {
		return requests / 10
	}
	return requests
}

// runBench measures from start to end and prints the report, also the one of a
// run that did not come to its end.
func runBench(ctx context.Context, opts options) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	dir, err := makeDir(filepath.Join(root, "bench", ".tmp"))
	if err != nil {
		return err
	}
	if !opts.keep {
		defer removeDir(dir)
	}
	b, err := newBench(ctx, opts, dir)
	if err != nil {
		return err
	}
	defer b.launch.killAll()
	if err := b.assemble(root); err != nil {
		return err
	}
	failed := b.measure()
	return errors.Join(failed, b.conclude())
}

func newBench(ctx context.Context, opts options, dir string) (*bench, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &bench{
		ctx: ctx, opts: opts, dir: dir, self: self, requests: map[*speech]string{},
		launch:   &launcher{dir: dir},
		say:      func(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) },
		proxyCPU: opts.proxyCPU, loadCPU: opts.loadCPU,
	}
	b.report.spreads = map[string]balance{}
	b.report.Versions = map[string]string{}
	b.report.Options = map[string]any{
		"quick": opts.quick, "runs": opts.runs, "idle_runs": opts.idleRuns, "idle_wait_s": opts.idleWait.Seconds(),
		"idle_conns": opts.conns, "backend_streams": opts.backendStreams,
	}
	if load := loadAverage(); load > 1 {
		b.report.note("load average %.1f at the start: the machine was not idle, the figures are too high", load)
	}
	b.report.Machine, err = thisMachine()
	return b, err
}

// assemble gathers everything that a measurement needs, from the machine up.
func (b *bench) assemble(root string) error {
	if err := checkCores(b.proxyCPU, b.loadCPU); err != nil {
		return err
	}
	if err := b.limitConns(); err != nil {
		return err
	}
	sluice := b.opts.sluice
	if sluice == "" {
		sluice = filepath.Join(b.dir, "sluice")
	}
	sluice, err := filepath.Abs(sluice)
	if err != nil {
		return err
	}
	if err := b.choose(sluice); err != nil {
		return err
	}
	b.buildOurs(root, sluice)
	b.buildTranslators(root)
	if err := b.findTools(); err != nil {
		return err
	}
	return b.prepare()
}

// buildOurs compiles sluice, when it is to be measured and not given. Without
// it the peers are measured all the same, and the benchmark fails at its end.
func (b *bench) buildOurs(root, binary string) {
	i := slices.IndexFunc(b.proxies, func(p proxy) bool { return p.ours && p.tool == binary })
	if i < 0 || b.opts.sluice != "" {
		return
	}
	b.say("building sluice")
	if err := buildSluice(b.ctx, root, binary); err != nil {
		b.leaveOut(b.proxies[i], err)
		b.proxies = slices.Delete(b.proxies, i, i+1)
	}
}

func (b *bench) findTools() error {
	names := []string{"h2load"}
	if b.opts.wantsAny(row.native) {
		names = append(names, "nghttpd")
	}
	for _, p := range b.proxies {
		if p.tool != "" && !p.ours {
			names = append(names, p.tool)
		}
	}
	var err error
	if b.tools, err = findTools(b.ctx, names, b.say); err != nil {
		return err
	}
	for _, p := range b.proxies {
		tool := b.tools[p.tool]
		if p.ours {
			tool = p.tool
		}
		b.report.Versions[p.name] = versionOf(p, tool)
	}
	return nil
}

// limitConns fits the idle connections into the limit of open files: a proxy
// needs a descriptor for each, and some for itself and its backends.
func (b *bench) limitConns() error {
	const spare = 500
	var err error
	if b.openFiles, err = raiseOpenFiles(uint64(3*b.opts.conns + spare)); err != nil {
		return err
	}
	b.conns = min(b.opts.conns, b.openFiles-spare)
	if b.conns < 1 {
		return fmt.Errorf("limit of %d open files: want %d", b.openFiles, b.opts.conns+spare)
	}
	if b.conns < b.opts.conns {
		b.report.note("%d idle connections, not %d: no more open files are allowed here", b.conns, b.opts.conns)
	}
	return nil
}

// conclude judges and prints.
func (b *bench) conclude() error {
	for _, p := range b.judged {
		if p.name != earlier {
			b.report.hold(p, b.opts.targets(), b.opts.wants)
		}
	}
	if b.opts.quick {
		b.report.note("-quick: fewer requests, connections and seconds than the targets are set for")
	}
	if err := b.report.print(os.Stdout); err != nil {
		return err
	}
	if b.opts.json != "" {
		if err := b.report.write(b.opts.json); err != nil {
			return err
		}
	}
	if n := len(b.report.Failures); n > 0 {
		return fmt.Errorf("%d failures, listed above", n)
	}
	if b.opts.strict && b.report.missed() {
		return errors.New("a target is missed")
	}
	return nil
}

// findRoot is the checkout: the directory with go.mod, here or above.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module sluice\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod of sluice here or above: run in the checkout")
		}
		dir = filepath.Dir(dir)
	}
}

func makeDir(parent string) (string, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	return os.MkdirTemp(parent, "run-")
}

// removeDir takes the parent along unless another run is in it.
func removeDir(dir string) {
	os.RemoveAll(dir)
	os.Remove(filepath.Dir(dir))
}

// checkCores fails where the proxy and its load would share a core.
func checkCores(proxy, load int) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return fmt.Errorf("read affinity: %w", err)
	}
	if proxy == load || !set.IsSet(proxy) || !set.IsSet(load) {
		return fmt.Errorf("cores %d and %d: want two different ones of the %d that this process may use (-proxy-cpu, -load-cpu)", proxy, load, set.Count())
	}
	return nil
}

// loadAverage is that of the last minute, or 0 when nobody knows.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, _ := strconv.ParseFloat(first, 64) // 0 when it is no number
	return load
}

func thisMachine() (machine, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return machine{}, err
	}
	return machine{CPU: cpuModel(), Cores: runtime.NumCPU(), Kernel: unix.ByteSliceToString(name.Release[:])}, nil
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
