package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// row is one thing that is measured of every proxy: a column of the printed
// table.
type row struct {
	name  string // as -only takes it
	title string
	unit  string

	// Under load: CPU time.
	conns, streams int
	requests       int // of one run
	path           string
	body           int     // bytes of a response
	scale          float64 // from CPU seconds per RPC to unit

	// Idle: memory. conns of a load row is zero.
	rpc bool // one RPC on each connection before it is idle
	tls bool

	// Translated protocols, under load as well: what the clients speak, and what
	// ours is measured beside, a translator's name or its own native relay. The
	// length of the replies is the probe's to find.
	speech     *speech
	translator string
	relayToo   bool

	// Ours only: two tables of routes side by side, under the row's load.
	routes [2]int
}

// microseconds per RPC, and seconds per 10^9 bytes of responses
const (
	perRPC  = 1e6
	perGB   = 1e9 / bulkBytes
	kibUnit = "KiB per connection"
)

var rows = []row{
	{name: "1x1", title: "1 conn × 1 stream", unit: "µs CPU per RPC", conns: 1, streams: 1, requests: 20_000, path: unaryPath, body: unaryBytes, scale: perRPC},
	{name: "10x10", title: "10 × 10", unit: "µs CPU per RPC", conns: 10, streams: 10, requests: 100_000, path: unaryPath, body: unaryBytes, scale: perRPC},
	{name: "50x100", title: "50 × 100", unit: "µs CPU per RPC", conns: 50, streams: 100, requests: 100_000, path: unaryPath, body: unaryBytes, scale: perRPC},
	{name: "bulk", title: "64 KB responses", unit: "s CPU per GB", conns: 10, streams: 10, requests: 10_000, path: bulkPath, body: bulkBytes, scale: perGB},
	{name: "idle", title: "idle, never used", unit: kibUnit},
	{name: "idle-rpc", title: "idle after one RPC", unit: kibUnit, rpc: true},
	{name: "idle-tls", title: "idle in TLS", unit: kibUnit, tls: true},
	{name: "routes", title: "10 and 10,000 routes, 10 × 10", unit: "µs CPU per RPC", conns: 10, streams: 10, requests: 100_000, path: unaryPath, body: unaryBytes, scale: perRPC, routes: [2]int{10, 10_000}},
	{name: "web-h1", title: "gRPC-Web, HTTP/1.1, 50 × 1", unit: "µs CPU per RPC", conns: 50, streams: 1, requests: 50_000, scale: perRPC, speech: speakWebHTTP1, translator: "grpcwebproxy"},
	{name: "web-h2", title: "gRPC-Web, HTTP/2, 10 × 10", unit: "µs CPU per RPC", conns: 10, streams: 10, requests: 100_000, scale: perRPC, speech: speakWebHTTP2, relayToo: true},
	{name: "rest", title: "REST GET, HTTP/1.1, 50 × 1", unit: "µs CPU per RPC", conns: 50, streams: 1, requests: 50_000, scale: perRPC, speech: speakREST, translator: "grpcgateway"},
	{name: "connect-json", title: "Connect in JSON, HTTP/1.1, 50 × 1", unit: "µs CPU per RPC", conns: 50, streams: 1, requests: 50_000, scale: perRPC, speech: speakConnectJSON},
}

func (r row) translated() bool { return r.speech != nil }

// native rows are served by the file servers.
func (r row) native() bool { return !r.translated() }

// tabled rows have a column in the tables of proxies.
func (r row) tabled() bool { return r.native() && r.routes == [2]int{} }

// cell is what one proxy showed in one row.
type cell struct {
	Row    string    `json:"row"`
	Proxy  string    `json:"proxy"`
	Unit   string    `json:"unit"`
	Runs   []float64 `json:"runs"`
	Spread spread    `json:"spread"`

	// Under load only.
	Latency  []latency `json:"latency,omitempty"`
	Backends []float64 `json:"backend_share,omitempty"` // of backend A in the CPU time of both
}

// measure runs the rows that were asked for.
func (b *bench) measure() error {
	var running []*instance
	if b.opts.wantsAny(row.native) {
		var err error
		if running, err = b.beginAll(); err != nil {
			return err
		}
	}
	for _, r := range rows {
		if !b.opts.wants(r.name) {
			continue
		}
		b.say("row %s", r.name)
		var err error
		switch {
		case r.translated():
			err = b.measureTranslated(r)
		case r.routes != [2]int{}:
			err = b.measureRoutes(r)
		case r.conns > 0:
			err = b.measureLoad(r, nativeLanes(r, running))
		default:
			err = b.measureIdle(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// beginAll starts every proxy once for the rows under load. One that does not
// come up is reported and left out; the others are still worth measuring.
func (b *bench) beginAll() ([]*instance, error) {
	var running []*instance
	for _, p := range b.proxies {
		i, err := b.begin(p, nil, 1)
		if err := b.ctx.Err(); err != nil {
			return nil, err
		}
		if err != nil {
			b.leaveOut(p, err)
			continue
		}
		running = append(running, i)
	}
	b.proxies = nil
	for _, i := range running {
		b.proxies = append(b.proxies, i.proxy)
	}
	return running, nil
}

// leaveOut notes why a proxy is not measured. One that just happened to be
// installed may be missing from the table.
func (b *bench) leaveOut(p proxy, err error) {
	b.say("%s left out: %v", p.name, err)
	if p.optional {
		b.report.note("%s left out: %v", p.name, err)
		return
	}
	b.report.fail("%s: %v", p.name, err)
}

// lane is what takes its turn in a row under load: a proxy, and how it is asked.
type lane struct {
	name   string // in the report
	on     *instance
	speech *speech
	body   int // bytes of a response
}

func nativeLanes(r row, running []*instance) []lane {
	s := nativeSpeech(r.path)
	var lanes []lane
	for _, i := range running {
		lanes = append(lanes, lane{i.proxy.name, i, s, r.body})
	}
	return lanes
}

// measureLoad lets the proxies take turns, run after run.
func (b *bench) measureLoad(r row, lanes []lane) error {
	cells := make([]cell, len(lanes))
	for n := -1; n < b.opts.runs; n++ {
		for k, l := range lanes {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			requests := b.opts.scaled(r.requests)
			if n < 0 {
				requests /= 5 // warms up, and is not counted
			}
			s, err := b.loadOnce(r, l, max(requests, r.conns*r.streams))
			if b.tried(r, l.on.proxy, err) && n >= 0 {
				cells[k].add(s)
			}
		}
	}
	for k, l := range lanes {
		b.report.add(r, l.name, cells[k])
	}
	return nil
}

// sample is one run under load.
type sample struct {
	cost    float64
	latency latency
	share   float64
}

func (c *cell) add(s sample) {
	c.Runs = append(c.Runs, s.cost)
	c.Latency = append(c.Latency, s.latency)
	c.Backends = append(c.Backends, s.share)
}

// loadOnce puts one run of h2load on a proxy. What the proxy still does when
// h2load has gone, closing its connections say, is its work too: lull waits
// for it.
func (b *bench) loadOnce(r row, l lane, requests int) (sample, error) {
	i := l.on
	var before counts
	if i.proxy.ours {
		var err error
		if before, err = i.counts(l.speech.protocol); err != nil {
			return sample{}, err
		}
	}
	const lull = 100 * time.Millisecond
	time.Sleep(lull)
	start, err := i.clocks()
	if err != nil {
		return sample{}, err
	}
	seen, err := b.run(load{addr: i.site.addr, speech: l.speech, conns: r.conns, streams: r.streams, requests: requests, body: l.body})
	if err != nil {
		return sample{}, err
	}
	time.Sleep(lull)
	end, err := i.clocks()
	if err != nil {
		return sample{}, err
	}
	if i.proxy.ours {
		if err := i.counted(before, l.speech, requests); err != nil {
			return sample{}, err
		}
	}
	return newSample(r, requests, start, end, seen, i.proxy)
}

// clocks is the CPU time of the proxy and of both backends.
type clocks struct {
	proxy    time.Duration
	backends [2]time.Duration
}

func (i *instance) clocks() (c clocks, err error) {
	if c.proxy, err = i.process.cpuTime(); err != nil {
		return c, err
	}
	for k, p := range i.backends.processes {
		if c.backends[k], err = p.cpuTime(); err != nil {
			return c, err
		}
	}
	return c, nil
}

func newSample(r row, requests int, start, end clocks, seen latency, p proxy) (sample, error) {
	first := (end.backends[0] - start.backends[0]).Seconds()
	both := first + (end.backends[1] - start.backends[1]).Seconds()
	s := sample{
		cost:    (end.proxy - start.proxy).Seconds() / float64(requests) * r.scale,
		latency: seen,
		share:   first / max(both, 1e-9),
	}
	if s.cost <= 0 {
		return s, errors.New("no CPU time used: not the process that serves?")
	}
	if p.ours && (s.share < 0.3 || s.share > 0.7) {
		return s, fmt.Errorf("not balanced: backend A did %.0f %% of the backends' work", 100*s.share)
	}
	return s, nil
}

// measureRoutes compares two tables of routes, of our binaries only.
func (b *bench) measureRoutes(r row) error {
	for _, p := range b.proxies {
		if !p.ours {
			continue
		}
		b.tried(r, p, b.measureTables(r, p))
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) measureTables(r row, p proxy) error {
	var pair []*instance
	for _, routes := range r.routes {
		i, err := b.begin(p, nil, routes)
		if err != nil {
			return err
		}
		defer i.process.kill()
		i.proxy.name = tableName(p, routes)
		pair = append(pair, i)
	}
	return b.measureLoad(r, nativeLanes(r, pair))
}

// tableNames are the two tables that a target compares.
func tableNames(p proxy) (of, to string) {
	i := slices.IndexFunc(rows, func(r row) bool { return r.name == "routes" })
	return tableName(p, rows[i].routes[1]), tableName(p, rows[i].routes[0])
}

// tableName is how a proxy with so many routes is called in the report.
func tableName(p proxy, routes int) string {
	return fmt.Sprintf("%s with %d routes", p.name, routes)
}

// measureIdle measures all proxies at once, since idle ones do not disturb
// each other, each freshly started.
func (b *bench) measureIdle(r row) error {
	var holding []proxy
	for _, p := range b.proxies {
		if !p.perConn {
			holding = append(holding, p)
		}
	}
	cells := make([]cell, len(holding))
	for range b.opts.idleRuns {
		for k, v := range b.idleOnce(r, holding) {
			cells[k].Runs = append(cells[k].Runs, v)
		}
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	for k, p := range holding {
		b.report.add(r, p.name, cells[k])
	}
	return nil
}

// idler is one proxy with its idle connections.
type idler struct {
	k        int // index of the proxy
	instance *instance
	holder   *holder
	atZero   int64 // resident bytes without connections
}

// idleOnce returns the bytes per connection, in KiB, by index of the proxy. A
// proxy that fails is reported and has no value.
func (b *bench) idleOnce(r row, proxies []proxy) map[int]float64 {
	var idlers []*idler
	for k, p := range proxies {
		d := &idler{k: k}
		defer d.close()
		if b.tried(r, p, b.beginIdle(r, p, d)) {
			idlers = append(idlers, d)
		}
	}
	idlers = slices.DeleteFunc(idlers, func(d *idler) bool {
		return !b.tried(r, proxies[d.k], d.holder.await("open"))
	})
	b.pause(b.opts.idleWait)
	values := map[int]float64{}
	for _, d := range idlers {
		v, err := b.weigh(d)
		if b.tried(r, proxies[d.k], err) {
			values[d.k] = v
		}
	}
	return values
}

// tried reports an error, and says whether there was none. One that comes from
// ending the benchmark early is nobody's failure.
func (b *bench) tried(r row, p proxy, err error) bool {
	if err != nil && b.ctx.Err() == nil {
		b.report.fail("row %s, %s: %v", r.name, p.name, err)
	}
	return err == nil
}

// beginIdle starts a proxy, weighs it and has the connections opened.
func (b *bench) beginIdle(r row, p proxy, d *idler) (err error) {
	args := []string{"-conns", fmt.Sprint(b.conns)}
	var pair *certificate
	if r.tls {
		pair = b.pair
		args = append(args, "-cert", pair.cert)
	}
	if r.rpc {
		args = append(args, "-rpc")
	}
	if d.instance, err = b.begin(p, pair, 1); err != nil {
		return err
	}
	b.pause(time.Second) // the probe's connections go
	b.freeMemory(d.instance)
	if d.atZero, err = d.instance.process.resident(); err != nil {
		return err
	}
	d.holder, err = b.hold(append(args, "-addr", d.instance.site.addr)...)
	return err
}

// weigh reads the memory that the idle connections take, and then that they
// were there all the time.
func (b *bench) weigh(d *idler) (kib float64, err error) {
	b.freeMemory(d.instance)
	full, err := d.instance.process.resident()
	if err != nil {
		return 0, err
	}
	if full <= d.atZero {
		return 0, fmt.Errorf("%d bytes without connections, %d with them: not the process that serves them?", d.atZero, full)
	}
	return float64(full-d.atZero) / 1024 / float64(b.conns), d.holder.check()
}

func (b *bench) freeMemory(i *instance) {
	if i.proxy.ours && !i.freeMemory() {
		b.report.note("%s has no /debug/freeosmemory: its idle rows hold what the collector has not handed back", i.proxy.name)
	}
}

func (d *idler) close() {
	if d.holder != nil {
		d.holder.close()
	}
	if d.instance != nil {
		d.instance.process.kill()
	}
}

// pause waits, unless the benchmark is told to end.
func (b *bench) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-b.ctx.Done():
	}
}
