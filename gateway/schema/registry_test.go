package schema

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"google.golang.org/protobuf/proto"

	"sluice/store"
)

// fleet is a registry with the backends that it can ask.
type fleet struct {
	*Registry
	played  backends
	set     *store.Set
	changes atomic.Int32

	mu    sync.Mutex
	asked []string // "backend version" of each conversation that began
	now   int      // conversations that go on
	most  int
}

// newFleet is a registry that runs until the test ends.
func newFleet(t *testing.T, played backends) *fleet {
	f := &fleet{played: played, set: new(store.Set)}
	f.Registry = NewRegistry(Options{Open: f.open, Changed: func() { f.changes.Add(1) }})
	for key := range played {
		f.addBackend(key)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	f.Apply(f.set)
	return f
}

func (f *fleet) addBackend(key string) {
	namespace, name, _ := strings.Cut(key, "/")
	f.set.Backends = append(f.set.Backends, &store.Backend{
		Meta: store.Meta{Namespace: namespace, Name: name}, Spec: store.BackendSpec{Protocol: store.ProtocolH2C},
	})
}

// addObject adds a Schema object for backends of namespace default, and applies it.
func (f *fleet) addObject(t *testing.T, name string, files map[string]string, backends ...string) *store.Schema {
	o := &store.Schema{Meta: store.Meta{Namespace: "default", Name: name}}
	o.Spec.DescriptorSet = encode(t, compiledSet(t, files))
	for _, b := range backends {
		o.Spec.BackendRefs = append(o.Spec.BackendRefs, store.SchemaBackendRef{Name: b})
	}
	set := *f.set
	set.Schemas = append(slices.Clone(set.Schemas), o)
	f.set = &set
	f.Apply(f.set)
	return o
}

func (f *fleet) open(ctx context.Context, backend, method string) (Stream, error) {
	f.mu.Lock()
	f.asked = append(f.asked, backend+" "+strings.Split(method, ".")[2])
	f.mu.Unlock()
	f.mu.Lock()
	servers := f.played[backend]
	f.mu.Unlock()
	s, err := backends{backend: servers}.open(ctx, backend, method)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	return &countedStream{s, f}, nil
}

// play lets a backend be another program from now on.
func (f *fleet) play(key string, servers map[string]server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.played[key] = servers
}

type countedStream struct {
	Stream
	fleet *fleet
}

func (s *countedStream) Close() {
	s.Stream.Close()
	s.fleet.mu.Lock()
	s.fleet.now--
	s.fleet.mu.Unlock()
}

func (f *fleet) conversations() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *fleet) wantConversations(t *testing.T, want int) {
	t.Helper()
	synctest.Wait()
	if got := f.conversations(); got != want {
		t.Errorf("at %v: %d conversations %v, want %d", time.Now().Format("15:04:05"), got, f.asked, want)
	}
}

// v1 is a backend that speaks reflection v1.
func v1(s server) map[string]server { return map[string]server{ReflectionV1: s} }

// slow answers after a while.
func slow(d time.Duration, s server) server {
	return func(ctx context.Context, ask func() ([]byte, error), answer func([]byte) error) error {
		select {
		case <-time.After(d):
			return s(ctx, ask, answer)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// failing ends with an error of its own.
func failing(context.Context, func() ([]byte, error), func([]byte) error) error {
	return errors.New("UNAVAILABLE: connection refused")
}

const get, watch = "/shop.v1.Cart/Get", "/shop.v1.Cart/Watch"

func TestRegistryLearnsWhenSomebodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, backends{"default/a": v1(grpcGo(schemaOf(t, shop)))})
		time.Sleep(time.Hour)
		f.wantConversations(t, 0)
		if n := len(f.View().Methods()) + len(f.View().Sources()); n > 0 {
			t.Errorf("%d methods and sources before anybody asked", n)
		}
		m, err := f.Method(t.Context(), "default/a", get)
		if err != nil || m.Path != get {
			t.Fatalf("method %v, error %v", m, err)
		}
		if _, err := f.Method(t.Context(), "default/a", watch); err != nil {
			t.Error(err)
		}
		f.wantConversations(t, 1)
		if f.changes.Load() != 1 {
			t.Errorf("%d changes told, want 1", f.changes.Load())
		}
		want := Source{Backend: "default/a", Kind: KindReflection, Version: "v1", Methods: 2, Learnt: time.Now()}
		if got := f.View().Sources(); !slices.Equal(got, []Source{want}) {
			t.Errorf("sources %+v", got)
		}
		if got := paths(f.View().Methods()); !slices.Equal(got, []string{get, watch}) {
			t.Errorf("methods %v", got)
		}
	})
}

func TestRegistryMethodTellsWhyThereIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, backends{
			"default/a":      v1(grpcGo(schemaOf(t, shop))),
			"default/broken": v1(failing),
			"default/mute":   {},
			"default/silent": v1(slow(time.Hour, nil)),
			"default/legacy": {},
		})
		for _, b := range f.set.Backends {
			if b.Name == "legacy" {
				b.Spec.Protocol = store.ProtocolHTTP1
			}
		}
		f.Apply(f.set)
		tests := []struct {
			backend, path string
			is            error
			want          string
		}{
			{"default/a", "/shop.v1.Cart/Drop", ErrNoMethod, `describing method "/shop.v1.Cart/Drop" of backend "default/a": no such method in what the backend's reflection told`},
			{"default/broken", get, ErrNoSchema, "no schema yet: asking its reflection: listing services: UNAVAILABLE: connection refused"},
			{"default/mute", get, ErrNoSchema, "no schema: it has no reflection: make a Schema object that names it (sluice schema push)"},
			{"default/silent", get, ErrNoSchema, "no schema yet: no answer of its reflection within 5s"},
			{"default/legacy", get, ErrNoSchema, "it speaks http1, which has no reflection"},
			{"default/unheard-of", get, ErrNoSchema, `backend "default/unheard-of": no schema`},
		}
		for _, test := range tests {
			begun := time.Now()
			m, err := f.Method(t.Context(), test.backend, test.path)
			if m != nil || !errors.Is(err, test.is) {
				t.Errorf("%s: method %v, error %v", test.backend, m, err)
			}
			wantText(t, err, test.want)
			if d := time.Since(begun); d > learnTimeout {
				t.Errorf("%s: told after %v", test.backend, d)
			}
		}
	})
}

func TestRegistryMethodEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, backends{"default/a": v1(slow(3*time.Second, grpcGo(schemaOf(t, shop))))})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Method(ctx, "default/a", get); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNoSchema) {
			t.Errorf("error %v", err)
		}
		// The conversation goes on for whoever comes next.
		if _, err := f.Method(t.Context(), "default/a", get); err != nil {
			t.Error(err)
		}
		f.wantConversations(t, 1)
	})
}

func TestRegistryAsksOnceForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, backends{"default/a": v1(slow(time.Second, grpcGo(schemaOf(t, shop))))})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := f.Method(t.Context(), "default/a", get); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if !f.Learn(t.Context(), []string{"default/a"}) {
					t.Error("nothing learnt")
				}
			})
		}
		wg.Wait()
		f.wantConversations(t, 1)
		if f.Learn(t.Context(), []string{"default/a", "default/none"}) {
			t.Error("learnt twice")
		}
		f.wantConversations(t, 1)
	})
}

func TestRegistryAsksFourAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		played := make(backends)
		var keys []string
		for i := range 12 {
			key := fmt.Sprintf("default/b%02d", i)
			keys = append(keys, key)
			played[key] = v1(slow(time.Second, grpcGo(schemaOf(t, shop))))
		}
		f := newFleet(t, played)
		begun := time.Now()
		if !f.Learn(t.Context(), keys) {
			t.Error("nothing learnt")
		}
		if d := time.Since(begun); d != 3*time.Second || f.most != 4 {
			t.Errorf("%v with %d at once, want 3s with 4", d, f.most)
		}
		if n := len(f.View().Methods()); n != 2 {
			t.Errorf("%d methods of 12 backends with one schema, want 2", n)
		}
	})
}

func TestRegistryGivesUpWaitingForATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		played := make(backends)
		var keys []string
		for i := range 3 * maxLessons {
			key := fmt.Sprintf("default/b%02d", i)
			keys = append(keys, key)
			played[key] = v1(slow(time.Hour, nil))
		}
		f := newFleet(t, played)
		begun := time.Now()
		if f.Learn(t.Context(), keys) || time.Since(begun) != learnTimeout {
			t.Errorf("learnt something, or ended after %v", time.Since(begun))
		}
		time.Sleep(time.Minute)
		busy := 0
		for _, s := range f.View().Sources() {
			if strings.Contains(s.Err, "no turn within 8s") {
				busy++
			}
		}
		if f.conversations() != 2*maxLessons || busy != maxLessons {
			t.Errorf("%d conversations, %d without a turn", f.conversations(), busy)
		}
	})
}

func TestRegistryRemembersFailures(t *testing.T) {
	tests := []struct {
		name   string
		server map[string]server
		each   int // conversations of one attempt
		want   []time.Duration
	}{
		{"a failure", v1(failing), 1, []time.Duration{0, 10 * time.Second, 30 * time.Second, 70 * time.Second, 150 * time.Second, 310 * time.Second, 610 * time.Second}},
		{"no reflection", map[string]server{}, 2, []time.Duration{0, 300 * time.Second, 600 * time.Second}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, backends{"default/a": test.server})
				begun := time.Now()
				var got []time.Duration
				for time.Since(begun) <= test.want[len(test.want)-1] {
					before := f.conversations()
					f.Learn(t.Context(), []string{"default/a"})
					if n := f.conversations() - before; n == test.each {
						got = append(got, time.Since(begun))
					} else if n != 0 {
						t.Fatalf("%d conversations", n)
					}
					time.Sleep(time.Second)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("asked at %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestRegistryLooksAgainAtABackendThatReconnected(t *testing.T) {
	newer := map[string]string{
		"shop/v1/item.proto": shop["shop/v1/item.proto"],
		"shop/v1/cart.proto": strings.Replace(shop["shop/v1/cart.proto"], "rpc Watch(", "rpc Drop(GetRequest) returns (GetResponse); rpc Watch(", 1),
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, backends{"default/a": v1(grpcGo(schemaOf(t, shop)))})
		f.Reconnected("default/a") // nobody has asked for it
		f.Reconnected("default/none")
		time.Sleep(time.Minute)
		f.wantConversations(t, 0)
		if !f.Learn(t.Context(), []string{"default/a"}) {
			t.Fatal("nothing learnt")
		}

		// Endpoints come together, soon after the first conversation.
		f.play("default/a", v1(grpcGo(schemaOf(t, newer))))
		for range 5 {
			f.Reconnected("default/a")
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(restTime - time.Second)
		f.wantConversations(t, 1)
		time.Sleep(time.Second)
		f.wantConversations(t, 2)
		if _, err := f.Method(t.Context(), "default/a", "/shop.v1.Cart/Drop"); err != nil {
			t.Error(err)
		}
		if f.changes.Load() != 2 {
			t.Errorf("%d changes, want 2", f.changes.Load())
		}

		// The same once more: nothing changes, and it takes 1 s.
		time.Sleep(time.Minute)
		s := f.View().Backend("default/a")
		f.Reconnected("default/a")
		time.Sleep(settleTime)
		f.wantConversations(t, 3)
		if f.View().Backend("default/a") != s || f.changes.Load() != 2 {
			t.Error("the same schema is taken for another")
		}

		// A failure leaves in force what was told, and is tried again.
		time.Sleep(time.Minute)
		f.play("default/a", v1(failing))
		f.Reconnected("default/a")
		time.Sleep(settleTime + firstBackoff)
		f.wantConversations(t, 5)
		if f.View().Backend("default/a") != s || f.View().Sources()[0].Err == "" {
			t.Errorf("sources %+v", f.View().Sources())
		}
		f.play("default/a", v1(grpcGo(schemaOf(t, newer))))
		time.Sleep(2 * firstBackoff)
		f.wantConversations(t, 6)
		time.Sleep(time.Hour)
		f.wantConversations(t, 6)

		// Who gives reflection up keeps what was told, and is left alone.
		f.play("default/a", nil)
		f.Reconnected("default/a")
		time.Sleep(time.Hour)
		f.wantConversations(t, 8) // one try of each version
		if f.View().Backend("default/a") != s {
			t.Error("the schema is gone")
		}
	})
}

func TestRegistryForgetsAFailureWhenABackendReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, backends{"default/a": {}})
		if f.Learn(t.Context(), []string{"default/a"}) {
			t.Error("learnt something")
		}
		f.play("default/a", v1(grpcGo(schemaOf(t, shop))))
		f.Reconnected("default/a")
		time.Sleep(restTime)
		f.wantConversations(t, 2) // none by itself
		if _, err := f.Method(t.Context(), "default/a", get); err != nil {
			t.Error(err)
		}
	})
}

func TestRegistryPrefersObjectsThatNameTheBackend(t *testing.T) {
	service := func(method string) map[string]string {
		return map[string]string{"s.proto": `syntax = "proto3"; package s; message M {} service S { rpc All(M) returns (M); rpc ` + method + `(M) returns (M); }`}
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, backends{
			"default/named":     v1(grpcGo(schemaOf(t, service("Reflected")))),
			"default/reflected": v1(grpcGo(schemaOf(t, service("Reflected")))),
			"default/mute":      {},
		})
		f.addObject(t, "every", service("Every"))
		f.addObject(t, "one", service("Named"), "named")
		of := func(backend, method string) string {
			m, err := f.Method(t.Context(), "default/"+backend, "/s.S/"+method)
			if err != nil {
				return ""
			}
			for _, own := range []string{"Named", "Reflected", "Every"} {
				if m.Schema.Method("/s.S/"+own) != nil {
					return own
				}
			}
			return "none"
		}
		for _, test := range []struct{ backend, method, want string }{
			{"named", "All", "Named"},
			{"named", "Named", "Named"},
			{"named", "Every", "Every"},
			{"named", "Reflected", ""},
			{"reflected", "All", "Reflected"},
			{"reflected", "Every", "Every"},
			{"reflected", "Named", ""},
			{"mute", "All", "Every"},
			{"unheard-of", "All", "Every"},
		} {
			if got := of(test.backend, test.method); got != test.want {
				t.Errorf("method %s of backend %s is of schema %q, want %q", test.method, test.backend, got, test.want)
			}
		}
		if n := f.conversations(); n != 3 { // reflected once, mute twice, named never
			t.Errorf("conversations %v", f.asked)
		}
		if got, want := paths(f.View().Methods()), []string{"/s.S/All", "/s.S/All", "/s.S/All", "/s.S/Every", "/s.S/Named", "/s.S/Reflected"}; !slices.Equal(got, want) {
			t.Errorf("methods %v, want %v", got, want)
		}

		// Without the object, the backend is asked.
		set := *f.set
		set.Schemas = set.Schemas[:1]
		f.Apply(&set)
		if got := of("named", "All"); got != "Reflected" {
			t.Errorf("schema %q after the object is gone", got)
		}
	})
}

func TestRegistryCompilesAnObjectOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, backends{"default/a": {}})
		one := f.addObject(t, "one", shop, "a")
		before := f.View().Backend("default/a")
		two := f.addObject(t, "two", till)
		if f.View().Backend("default/a") != before {
			t.Error("an object that did not change was compiled again")
		}
		// The same content elsewhere is the same schema; broken content keeps the last.
		again := *one
		again.Name = "again"
		again.Spec.BackendRefs = nil
		broken := *one
		broken.Spec.DescriptorSet = []byte("no set")
		f.Apply(&store.Set{Backends: f.set.Backends, Schemas: []*store.Schema{&broken, two, &again}})
		if got := f.View().Schemas("default/a"); len(got) != 3 || got[0] != before || got[1] != before {
			t.Errorf("schemas %v", got)
		}
		s := f.View().Sources()
		if len(s) != 3 || s[2].Object != "default/one" || !strings.Contains(s[2].Err, "decoding a set of descriptors") {
			t.Errorf("sources %+v", s)
		}
	})
}

func TestRegistryDropsWhatIsKnownOfBackendsThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, backends{"default/a": v1(grpcGo(schemaOf(t, shop)))})
		if !f.Learn(t.Context(), []string{"default/a"}) {
			t.Fatal("nothing learnt")
		}
		schema := weak.Make(f.View().Backend("default/a"))
		f.Apply(new(store.Set))
		if len(f.View().Sources()) > 0 || f.View().Backend("default/a") != nil || f.changes.Load() != 2 {
			t.Errorf("sources %+v, %d changes", f.View().Sources(), f.changes.Load())
		}
		f.play("default/a", nil)
		runtime.GC()
		if schema.Value() != nil {
			t.Error("its memory is held")
		}
	})
}

// TestRegistryTellsOfChangesOneAfterAnother has backends that tell at the same moment, and
// somebody who takes his time to follow.
func TestRegistryTellsOfChangesOneAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := new(store.Set)
		played := make(backends)
		var keys []string
		for _, name := range []string{"a", "b", "c"} {
			keys = append(keys, "default/"+name)
			played["default/"+name] = v1(slow(time.Second, grpcGo(schemaOf(t, version(name, "f")))))
			set.Backends = append(set.Backends, &store.Backend{Meta: store.Meta{Namespace: "default", Name: name}})
		}
		var r *Registry
		var now atomic.Int32
		var seen *View // the last one that was followed
		r = NewRegistry(Options{Open: played.open, Changed: func() {
			if now.Add(1) > 1 {
				t.Error("two at once")
			}
			v := r.View()
			time.Sleep(time.Second)
			seen = v
			now.Add(-1)
		}})
		r.Apply(set)
		if !r.Learn(t.Context(), keys) {
			t.Error("nothing learnt")
		}
		if seen != r.View() || len(seen.Methods()) != 3 {
			t.Errorf("methods %v were followed", paths(seen.Methods()))
		}
	})
}

func TestRegistryEndsItsConversations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{played: backends{"default/a": v1(slow(time.Hour, nil))}, set: new(store.Set)}
		f.Registry = NewRegistry(Options{Open: f.open})
		f.addBackend("default/a")
		f.Apply(f.set)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { f.Learn(t.Context(), []string{"default/a"}) })
		synctest.Wait()
		cancel()
		begun := time.Now()
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if f.Learn(t.Context(), []string{"default/a"}) || time.Since(begun) > 0 {
			t.Errorf("ended after %v", time.Since(begun))
		}
		f.wantConversations(t, 1)
	})
}

func TestViewLookupsAllocateNothing(t *testing.T) {
	r := NewRegistry(Options{Open: backends{"default/a": v1(grpcGo(schemaOf(t, shop)))}.open})
	r.Apply(&store.Set{Backends: []*store.Backend{{Meta: store.Meta{Namespace: "default", Name: "a"}}}})
	if !r.Learn(t.Context(), []string{"default/a"}) {
		t.Fatal("nothing learnt")
	}
	ctx := t.Context()
	keys := []string{"default/a"}
	for name, lookup := range map[string]func(){
		"View.Method":     func() { r.View().Method("default/a", get) },
		"Registry.Method": func() { r.Method(ctx, "default/a", get) },
		"Registry.Learn":  func() { r.Learn(ctx, keys) },
		"View.Methods":    func() { r.View().Methods() },
		"View.Backend":    func() { r.View().Backend("default/a") },
	} {
		if n := testing.AllocsPerRun(100, lookup); n > 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestRegistrySharesNoBytesWithTheStore(t *testing.T) {
	r := NewRegistry(Options{})
	o := &store.Schema{Meta: store.Meta{Namespace: "default", Name: "one"}}
	o.Spec.DescriptorSet = encode(t, compiledSet(t, shop))
	r.Apply(&store.Set{Schemas: []*store.Schema{o}})
	clear(o.Spec.DescriptorSet)
	m, err := r.Method(t.Context(), "default/any", get)
	if err != nil || m.Bindings[0].Template != "/v1/{name=carts/*}" {
		t.Fatalf("method %+v, error %v", m, err)
	}
	if !proto.Equal(m.Schema.FileSet().GetFile()[0], m.Schema.FileSet().GetFile()[0]) {
		t.Error("two sets of one schema differ")
	}
}
