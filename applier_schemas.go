package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/admin"
	"sluice/gateway"
	"sluice/gateway/schema"
	"sluice/store"
)

// known is what is known of methods, after asking the backends when learn says so.
func (a *applier) known(ctx context.Context, backends []string, learn bool) *schema.View {
	if learn {
		a.gateway.LearnSchemas(ctx, backends)
	}
	return a.gateway.SchemaView()
}

// allBackends are the keys of the backends that there are.
func (a *applier) allBackends() []string {
	var keys []string
	for _, o := range a.store.Snapshot().All(store.BackendKind) {
		keys = append(keys, o.ID.Key())
	}
	return keys
}

// Schemas tells where descriptors come from, in the words of the door.
func (a *applier) Schemas(ctx context.Context, learn bool) []admin.SchemaSource {
	return toldSources(a.known(ctx, a.allBackends(), learn).Sources(), func(schema.Source) bool { return true })
}

// Methods tells of the methods of backends, in the words of the door.
func (a *applier) Methods(ctx context.Context, of admin.MethodsOf) ([]admin.Method, []admin.SchemaSource, error) {
	route, err := a.route(of.Route)
	if err != nil {
		return nil, nil, err
	}
	backends := a.allBackends()
	switch {
	case of.Backend != "":
		backends = []string{of.Backend}
	case route != nil:
		backends = gateway.RouteBackends(route)
	}
	v := a.known(ctx, backends, of.Learn)
	told := toldMethods{byName: map[string]*admin.Method{}}
	if route != nil {
		for _, m := range gateway.RouteMethods(v, route) {
			told.add(m)
		}
		told.only = true
	}
	for _, key := range backends {
		for _, s := range v.Schemas(key) {
			for _, m := range s.Methods() {
				told.addBackend(m, key)
			}
		}
	}
	if of.Backend == "" && route == nil {
		for _, m := range v.Methods() {
			if !told.has(m) {
				told.add(m) // of no backend that there is
			}
		}
	}
	problems := toldSources(v.Sources(), func(s schema.Source) bool {
		return s.Err != "" && (s.Backend == "" || slices.Contains(backends, s.Backend))
	})
	return told.sorted(), problems, nil
}

// OpenAPI describes the methods of a route.
func (a *applier) OpenAPI(ctx context.Context, id store.ID) ([]byte, error) {
	route, err := a.route(id)
	if err != nil {
		return nil, err
	}
	backends := gateway.RouteBackends(route)
	v := a.known(ctx, backends, true)
	document, err := gateway.RouteOpenAPI(v, route)
	if errors.Is(err, gateway.ErrNoMethods) {
		var causes []string
		for _, s := range v.Sources() {
			if s.Err != "" && slices.Contains(backends, s.Backend) {
				causes = append(causes, s.Backend+": "+s.Err)
			}
		}
		cause := strings.Join(causes, "; ")
		if cause == "" {
			cause = "its backends tell of none that its rules take"
		}
		return nil, fmt.Errorf("describe %s: %w: %s; serve reflection, or push descriptors with sluice schema push", id, admin.ErrUnknownMethods, cause)
	}
	return document, err
}

// route is the route of that ID, nil for the zero ID.
func (a *applier) route(id store.ID) (store.Resource, error) {
	if id.IsZero() {
		return nil, nil
	}
	o, found := a.store.Snapshot().Get(id)
	if !found {
		return nil, &store.NotFoundError{ID: id}
	}
	return o.Resource, nil
}

// toldMethods gathers methods in the words of the door.
type toldMethods struct {
	byName map[string]*admin.Method
	only   bool // no others are to be added
}

func (t *toldMethods) addBackend(m *schema.Method, backend string) {
	if !t.has(m) {
		if t.only {
			return
		}
		t.add(m)
	}
	if told := t.byName[methodName(m)]; !slices.Contains(told.Backends, backend) {
		told.Backends = append(told.Backends, backend)
	}
}

// methodName is "shop.v1.Cart/Get".
func methodName(m *schema.Method) string { return strings.TrimPrefix(m.Path, "/") }

func (t *toldMethods) has(m *schema.Method) bool { return t.byName[methodName(m)] != nil }

func (t *toldMethods) add(m *schema.Method) {
	d := m.Descriptor
	options, _ := d.Options().(interface{ GetDeprecated() bool })
	told := &admin.Method{
		Name: methodName(m), Input: string(d.Input().FullName()), Output: string(d.Output().FullName()),
		ClientStreaming: m.ClientStreaming, ServerStreaming: m.ServerStreaming, NoSideEffects: m.NoSideEffects,
		Deprecated: options != nil && options.GetDeprecated(), Description: commentOf(d),
	}
	for _, b := range m.Bindings {
		told.Bindings = append(told.Bindings, admin.HTTPBinding{Verb: b.Verb, Path: b.Template, Body: b.Body, ResponseBody: b.ResponseBody})
	}
	t.byName[told.Name] = told
}

// maxComment bounds what is told of the comment of a method, in bytes: the answer has
// those of thousands.
const maxComment = 500

func commentOf(d protoreflect.Descriptor) string {
	text := strings.TrimSpace(d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments)
	if len(text) > maxComment {
		text = text[:maxComment] + "…"
	}
	return strings.ToValidUTF8(strings.ReplaceAll(text, "\n ", "\n"), "")
}

func (t *toldMethods) sorted() []admin.Method {
	var all []admin.Method
	for _, m := range slices.SortedFunc(maps.Values(t.byName), func(a, b *admin.Method) int { return cmp.Compare(a.Name, b.Name) }) {
		all = append(all, *m)
	}
	return all
}

// toldSources are those of the sources that are wanted.
func toldSources(sources []schema.Source, wanted func(schema.Source) bool) (told []admin.SchemaSource) {
	for _, s := range sources {
		if !wanted(s) {
			continue
		}
		one := admin.SchemaSource{Backend: s.Backend, Version: s.Version, Methods: s.Methods, Learnt: s.Learnt, Problem: s.Err}
		if namespace, name, ok := strings.Cut(s.Object, "/"); ok {
			one.Object = store.ID{Kind: store.SchemaKind, Namespace: namespace, Name: name}
		}
		told = append(told, one)
	}
	return told
}
