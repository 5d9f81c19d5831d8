package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bench is one run of the benchmark: where it runs, with what, and what it has
// found so far. It belongs to the main goroutine.
type bench struct {
	ctx    context.Context
	opts   options
	dir    string // temporary, removed at the end
	self   string // this program, which is also the relay and the holder
	launch *launcher
	say    func(format string, args ...any) // progress, to standard error

	proxyCPU, loadCPU int

	tools     map[string]string // path of each program by name
	openFiles int               // limit of file descriptors, as raised
	conns     int               // idle connections

	proxies     []proxy // to be measured
	translators []proxy // to be measured, in the rows of translated protocols
	judged      []proxy // those of ours that were asked for, measured or not
	servers     backends
	echoes      backends           // of the rows of translated protocols
	requests    map[*speech]string // file with the body of the request
	pair        *certificate

	report report
}

// backends are the two servers behind every proxy.
type backends struct {
	processes [2]*process
	addrs     [2]string
}

// instance is a proxy that runs.
type instance struct {
	proxy    proxy
	site     site
	process  *process
	backends *backends
}

// prepare writes the files that everyone needs and starts the backends.
func (b *bench) prepare() error {
	var err error
	if b.pair, err = newCertificate(b.dir); err != nil {
		return err
	}
	if b.opts.wantsAny(row.native) {
		if err := b.startServers(); err != nil {
			return err
		}
	}
	if b.opts.wantsAny(row.translated) {
		return b.startEchoes()
	}
	return nil
}

func (b *bench) startServers() error {
	mime := filepath.Join(b.dir, "mime.types")
	if err := os.WriteFile(mime, []byte("application/grpc grpc\n"), 0o600); err != nil {
		return err
	}
	for i, letter := range backendFill {
		if err := b.startBackend(i, letter, mime); err != nil {
			return err
		}
	}
	return nil
}

// startBackend starts a file server that answers POST with a file, whose bytes
// tell which backend it is, and with a trailer.
func (b *bench) startBackend(i int, letter byte, mime string) error {
	root := filepath.Join(b.dir, fmt.Sprintf("backend%d", i))
	if err := os.MkdirAll(filepath.Join(root, service), 0o700); err != nil {
		return err
	}
	err := writeFiles(map[string][]byte{
		filepath.Join(root, unaryPath): message(unaryBytes, letter),
		filepath.Join(root, bulkPath):  message(bulkBytes, letter),
	})
	if err != nil {
		return err
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(addr)
	p, err := b.launch.start(command{
		name: fmt.Sprintf("nghttpd%d", i),
		cpu:  b.loadCPU,
		argv: []string{
			b.tools["nghttpd"], "--no-tls", "--address=" + host, "--workers=1", "--htdocs=" + root,
			"--trailer=grpc-status: 0", "--mime-types-file=" + mime,
			fmt.Sprintf("--max-concurrent-streams=%d", b.opts.backendStreams), port,
		},
	})
	if err != nil {
		return err
	}
	b.servers.processes[i], b.servers.addrs[i] = p, addr
	return b.awaitPort(p, addr)
}

func (b *bench) startEchoes() error {
	for i, letter := range backendFill {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		p, err := b.launch.start(command{
			name: fmt.Sprintf("echo%d", i),
			cpu:  b.loadCPU,
			argv: []string{b.self, "echo", "-listen", addr, "-fill", string(letter), fmt.Sprintf("-streams=%d", b.opts.backendStreams)},
			env:  oneCore,
		})
		if err != nil {
			return err
		}
		b.echoes.processes[i], b.echoes.addrs[i] = p, addr
		if err := b.awaitPort(p, addr); err != nil {
			return err
		}
	}
	return nil
}

// freeAddr is an address that nobody listens on.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// startTimeout bounds the time from fork to the first accepted connection:
// ours reads 10,000 routes in it.
const startTimeout = 30 * time.Second

func (b *bench) awaitPort(p *process, addr string) error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if p.ended() {
			return p.complain(fmt.Errorf("ended at start: %v", p.err))
		}
		if err := b.ctx.Err(); err != nil {
			return err
		}
		nc, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			nc.Close()
			return nil
		}
	}
	return p.complain(fmt.Errorf("does not listen on %s after %v", addr, startTimeout))
}

// begin starts a proxy, checks by its replies that it does its work, and
// leaves it idle. How it spread the probe's RPCs goes into the report.
func (b *bench) begin(p proxy, pair *certificate, routes int) (*instance, error) {
	i := &instance{proxy: p, backends: &b.servers, site: site{backends: b.servers.addrs, pair: pair, routes: routes}}
	return i, b.start(i, b.prove)
}

// start starts a proxy at its site and has prove check that it does its work.
func (b *bench) start(i *instance, prove func(*instance) error) error {
	p := i.proxy
	var err1, err2, err3 error
	i.site.dir, err1 = os.MkdirTemp(b.dir, p.name+"-")
	i.site.addr, err2 = freeAddr()
	i.site.admin, err3 = freeAddr()
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	c, err := p.command(b, i.site)
	if err != nil {
		return fmt.Errorf("configure %s: %w", p.name, err)
	}
	c.name, c.cpu = p.name, b.proxyCPU
	if i.process, err = b.launch.start(c); err != nil {
		return err
	}
	if err := b.awaitService(i, prove); err != nil {
		i.process.kill()
		return err
	}
	return nil
}

func (b *bench) awaitService(i *instance, prove func(*instance) error) error {
	if err := b.awaitPort(i.process, i.site.addr); err != nil {
		return err
	}
	if i.proxy.ours {
		if err := b.awaitReady(i); err != nil {
			return err
		}
	}
	if err := prove(i); err != nil {
		return i.process.complain(fmt.Errorf("probe: %w", err))
	}
	// Only a reply proves that the workers are there: a master listens before
	// it forks them.
	return i.process.settle()
}

func (b *bench) awaitReady(i *instance) (err error) {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err = get("http://" + i.site.admin + "/readyz"); err == nil {
			return nil
		}
		if i.process.ended() || b.ctx.Err() != nil {
			break
		}
	}
	return i.process.complain(fmt.Errorf("not ready: %w", err))
}

// prove probes a proxy that has just started.
func (b *bench) prove(i *instance) error {
	spread, err := b.probe(i)
	if err != nil {
		return err
	}
	if err := spread.check(!i.proxy.perConn); err != nil {
		return err
	}
	b.report.spreads[i.proxy.name] = spread
	if i.proxy.ours && i.site.pair == nil {
		return probeFeatures(i.site.addr)
	}
	return nil
}

func (b *bench) probe(i *instance) (balance, error) {
	if i.site.pair == nil {
		return probe(i.site.addr, nil)
	}
	trust, err := trustIn(i.site.pair.cert)
	if err != nil {
		return balance{}, err
	}
	return probe(i.site.addr, trust)
}

// choose fills b.proxies with what was asked for, or with all that are there.
func (b *bench) choose(sluice string) error {
	known := append(slices.Clone(peers), newSluice("sluice", sluice))
	for _, name := range b.opts.proxies {
		if k := slices.IndexFunc(translators, func(p proxy) bool { return p.name == name }); k >= 0 {
			b.translators = append(b.translators, translators[k])
			continue
		}
		p, err := find(known, name)
		if err != nil {
			return err
		}
		b.proxies = append(b.proxies, p)
	}
	if len(b.opts.proxies) == 0 {
		b.proxies, b.translators = slices.DeleteFunc(known, absent), slices.Clone(translators)
	}
	if !b.opts.wantsAny(row.native) {
		b.proxies = slices.DeleteFunc(b.proxies, func(p proxy) bool { return !p.ours })
	}
	for _, p := range b.proxies {
		if p.ours {
			b.judged = append(b.judged, p)
		}
	}
	return nil
}

// absent says whether a proxy is one that nobody asked for and that is not
// installed.
func absent(p proxy) bool {
	_, err := lookTool(p.tool)
	return p.optional && err != nil
}

// find is the proxy of that name; "name=path" is another binary of sluice.
func find(known []proxy, name string) (proxy, error) {
	if name, binary, ok := strings.Cut(name, "="); ok {
		path, err := filepath.Abs(binary)
		return newSluice(name, path), err
	}
	for _, p := range known {
		if p.name == name {
			return p, nil
		}
	}
	return proxy{}, fmt.Errorf("-proxies: %q is none of them", name)
}

// versionOf is the first line that mentions a number.
func versionOf(p proxy, tool string) string {
	if len(p.version) == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	said, _ := exec.CommandContext(ctx, tool, p.version...).CombinedOutput()
	for line := range strings.Lines(string(said)) {
		if strings.ContainsAny(line, "0123456789") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
