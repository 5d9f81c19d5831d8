package gateway

import (
	"crypto/sha256"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"sluice/gateway/rest"
	"sluice/gateway/route"
	"sluice/gateway/schema"
	"sluice/gateway/wire"
	"sluice/store"
)

// openAPIPath is where the gateway describes the methods of routes that say so.
const openAPIPath = "/openapi.json"

// descriptions are what callers have asked to be told, as of one table and one view.
// They are made when first asked for, and shared by the authorities that lead to the
// same routes: callers choose authorities, and must not choose how many there are.
type descriptions struct {
	table *table
	view  *schema.View

	mu        sync.Mutex // guards the fields below
	documents map[routesServed][]byte
	reflected map[routesServed]*schema.Reflection
}

// routesServed is what authorities have in common that lead to the same routes.
type routesServed [sha256.Size]byte

// maxDescriptions bounds each of them.
const maxDescriptions = 100

// describing are the descriptions as of now.
func (g *Gateway) describing() *descriptions {
	t, v := g.table.Load(), g.schemas.registry.View()
	d := g.described.Load()
	if d == nil || d.table != t || d.view != v {
		d = &descriptions{table: t, view: v, documents: make(map[routesServed][]byte), reflected: make(map[routesServed]*schema.Reflection)}
		g.described.Store(d)
	}
	return d
}

// describe answers with an OpenAPI document, where routes of the authority may be
// described.
func (g *Gateway) describe(w http.ResponseWriter, r *http.Request, to *way) bool {
	if r.URL.Path != openAPIPath || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	t := g.table.Load()
	exposing := t.routes.Exposing(r.Host, func(e store.Expose) bool { return e.OpenAPI })
	if len(exposing) == 0 {
		return false
	}
	to.cors.allow(exposing[0])
	g.schemas.registry.Learn(r.Context(), backendsOf(exposing))
	document, err := g.describing().document(r.Host)
	if err != nil {
		g.rest.Fail(w, r, &wire.Status{Code: wire.Unavailable, Message: "sluice: no description: " + err.Error(), Gateway: true})
		return true
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(document)
	return true
}

func (d *descriptions) document(authority string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := routesServed(d.table.routes.Served(authority))
	if doc := d.documents[key]; doc != nil {
		return doc, nil
	}
	methods := d.methods(authority, func(e store.Expose) bool { return e.OpenAPI })
	if len(methods) == 0 {
		return nil, ErrNoMethods
	}
	var names []string
	for _, rule := range d.table.routes.Exposing(authority, func(e store.Expose) bool { return e.OpenAPI }) {
		if _, name, _ := strings.Cut(rule.Route, "/"); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	doc, err := rest.OpenAPI(rest.OpenAPIOptions{Title: strings.Join(names, ", "), Version: "1"}, methods)
	if err == nil && len(d.documents) < maxDescriptions {
		d.documents[key] = doc
	}
	return doc, err
}

// methods are those that lead to rules which may be described, by path.
func (d *descriptions) methods(authority string, which func(store.Expose) bool) []*schema.Method {
	var list []*schema.Method
	seen := make(map[string]bool)
	exposing := d.table.routes.Exposing(authority, which)
	for _, key := range backendsOf(exposing) {
		for _, s := range d.view.Schemas(key) {
			for _, m := range s.Methods() {
				if seen[m.Path] {
					continue
				}
				seen[m.Path] = true
				if rule, _ := d.table.routes.Lookup(authority, m.Path, nil); rule != nil && which(rule.Treatment.Expose) {
					list = append(list, m)
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b *schema.Method) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// backendsOf are the backends of rules, each once, in order.
func backendsOf(rules []*route.Rule) (keys []string) {
	for _, rule := range rules {
		for i := range rule.Splits {
			if key := rule.Splits[i].Backend; !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// isReflection tells the methods by which a server is asked what it serves.
func isReflection(path string) bool {
	return strings.HasPrefix(path, "/grpc.reflection.v1") && (path == schema.ReflectionV1 || path == schema.ReflectionV1Alpha)
}

// serveReflection tells what the routes of the authority serve, where they say so; else
// the RPC is one like any other.
func (g *Gateway) serveReflection(w http.ResponseWriter, r *http.Request) {
	exposing := g.table.Load().routes.Exposing(r.Host, func(e store.Expose) bool { return e.Reflection })
	if len(exposing) == 0 {
		g.serveGRPC(w, r)
		return
	}
	g.schemas.registry.Learn(r.Context(), backendsOf(exposing))
	g.nowhere.series.Start()
	st := g.describing().reflection(r.Host).converse(w, r)
	o, code := served, wire.OK
	if st != nil {
		o, code = outcomeOfTranslation(st), st.Code
	}
	g.nowhere.series.End(code, 0)
	g.ended[o].Add(1)
	setStatus(w.Header(), http.TrailerPrefix, st)
}

func (d *descriptions) reflection(authority string) reflector {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := routesServed(d.table.routes.Served(authority))
	if known := d.reflected[key]; known != nil {
		return reflector{known}
	}
	exposed := func(e store.Expose) bool { return e.Reflection }
	services := make(map[string]bool)
	for _, m := range d.methods(authority, exposed) {
		service, _, _ := strings.Cut(m.Path[1:], "/")
		services[service] = true
	}
	var schemas []*schema.Schema
	for _, key := range backendsOf(d.table.routes.Exposing(authority, exposed)) {
		for _, s := range d.view.Schemas(key) {
			if !slices.Contains(schemas, s) {
				schemas = append(schemas, s)
			}
		}
	}
	made := schema.NewReflection(schemas, func(service string) bool { return services[service] })
	if len(d.reflected) < maxDescriptions {
		d.reflected[key] = made
	}
	return reflector{made}
}

// reflector answers grpc.reflection over HTTP.
type reflector struct{ *schema.Reflection }

// maxQuestion bounds a question to reflection, bytes.
const maxQuestion = 64 << 10

// converse answers until the caller has no more questions. nil is a good end.
func (f reflector) converse(w http.ResponseWriter, r *http.Request) *wire.Status {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	flush := http.NewResponseController(w).Flush
	flush()
	c := f.Converse()
	for {
		question, flags, err := readMessage(r.Body, maxQuestion)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return statusOfError(err)
		case flags != 0:
			return &wire.Status{Code: wire.Unimplemented, Message: "sluice: reflection takes no compressed messages", Gateway: true}
		}
		answer, err := c.Answer(question)
		if err != nil {
			return &wire.Status{Code: wire.InvalidArgument, Message: "sluice: " + err.Error(), Gateway: true}
		}
		prefix := wire.AppendPrefix(nil, wire.Prefix{Length: uint32(len(answer))})
		if _, err := w.Write(append(prefix, answer...)); err != nil {
			return cancelled.status()
		}
		if flush() != nil {
			return cancelled.status()
		}
	}
}
