package schema

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/store"
)

var (
	// ErrNoMethod tells that schemas of the backend are known and none has the method.
	ErrNoMethod = errors.New("no such method")
	// ErrNoSchema tells that nothing is known of the backend.
	ErrNoSchema = errors.New("no schema")
	// ErrUnanswered is ErrNoSchema of a backend that could not be asked, or has not
	// answered yet: trying again may help.
	ErrUnanswered = fmt.Errorf("%w yet", ErrNoSchema)
)

// How backends are asked.
const (
	// learnTimeout bounds one conversation, and each wait of a request for one.
	learnTimeout = 5 * time.Second
	// slotTimeout bounds the wait for others' conversations before it.
	slotTimeout = 8 * time.Second
	// maxLessons is how many conversations go on at once.
	maxLessons = 4

	// firstBackoff to maxBackoff is how long a failure is remembered, twice as long each
	// time. UNIMPLEMENTED will not change until the backend does: it gets the longest.
	firstBackoff = 10 * time.Second
	maxBackoff   = 5 * time.Minute

	// settleTime is from a new endpoint to a new conversation: endpoints come together.
	// restTime is the least between two, so that a backend that comes and goes all the
	// time is not asked all the time.
	settleTime = time.Second
	restTime   = 10 * time.Second
)

// Options of a Registry.
type Options struct {
	Open Opener // required
	Log  *slog.Logger
	Now  func() time.Time // nil means time.Now
	// Changed, if any, is called after the schemas of a view have changed, by whichever
	// goroutine changed them. Calls do not overlap, so that the last one sees the newest
	// view; whoever waits for what changed goes on after it. It may read views, and asks
	// for nothing else.
	Changed func()
}

// Registry knows the schemas of backends: those that are objects of the store at once,
// and by reflection when somebody asks.
type Registry struct {
	open    Opener
	log     *slog.Logger
	now     func() time.Time
	changed func()
	telling chan struct{} // has a place for one call of changed

	view  atomic.Pointer[View]
	slots chan struct{} // one for each conversation that goes on
	wake  chan struct{} // tells Run that something is due

	// Of all conversations; cancelled when Run ends.
	lessons context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	applying sync.Mutex // held by Apply, before mu

	mu       sync.Mutex // guards the fields below
	stopped  bool
	objects  []*object // by key
	backends map[string]*backend
}

// object is a Schema object, compiled.
type object struct {
	spec     *store.Schema
	backends []string // keys; none means every backend
	schema   *Schema  // the last one that could be compiled, or nil
	err      error
}

// backend is what is known of a backend by reflection. The registry's mutex guards it.
type backend struct {
	key   string
	spec  *store.Backend
	named bool // a Schema object is for it, so that it is not asked

	asking *asking // the conversation that goes on, or nil

	learnt  *Schema // nil while it has told nothing
	version string
	at      time.Time // of the last conversation's end

	err      error // of the last conversation
	failures int   // in a row
	retry    time.Time
	again    time.Time // when it is asked again by itself; zero means not
}

// asking is one conversation, for all who wait for it.
type asking struct {
	done chan struct{} // closed at its end
	ok   bool          // it has told something; set before done is closed
}

// NewRegistry is a registry that knows nothing.
func NewRegistry(o Options) *Registry {
	r := &Registry{
		open:     o.Open,
		log:      o.Log,
		now:      o.Now,
		changed:  o.Changed,
		telling:  make(chan struct{}, 1),
		slots:    make(chan struct{}, maxLessons),
		wake:     make(chan struct{}, 1),
		backends: make(map[string]*backend),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.changed == nil {
		r.changed = func() {}
	}
	r.lessons, r.stop = context.WithCancel(context.Background())
	r.view.Store(new(View))
	return r
}

// View is what is known now.
func (r *Registry) View() *View { return r.view.Load() }

// Run asks backends again that have changed, until ctx is done; then it ends all
// conversations, and none begins any more.
func (r *Registry) Run(ctx context.Context) error {
	due := time.NewTimer(0)
	defer due.Stop()
	for ctx.Err() == nil {
		due.Reset(r.askDue())
		select {
		case <-due.C:
		case <-r.wake:
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.stop()
	r.running.Wait()
	return nil
}

// Apply takes over the Schema objects and the backends of a set. Objects that did not
// change are not compiled again; what is known of backends that are gone is dropped.
func (r *Registry) Apply(set *store.Set) {
	r.applying.Lock()
	defer r.applying.Unlock()

	r.mu.Lock()
	before := r.objects
	r.mu.Unlock()
	objects := compileObjects(before, set.Schemas) // takes its time, so without the mutex

	r.mu.Lock()
	r.objects = objects
	r.applyBackends(set.Backends)
	r.shareObjects(before)
	changed := r.publish()
	r.mu.Unlock()
	if changed {
		r.tell()
	}
}

// tell tells that the view has other schemas.
func (r *Registry) tell() {
	r.telling <- struct{}{}
	defer func() { <-r.telling }()
	r.changed()
}

// compileObjects are the objects of specs, with those of before where they are the same.
func compileObjects(before []*object, specs []*store.Schema) []*object {
	known := make(map[string]*object, len(before))
	for _, o := range before {
		known[o.spec.Key()] = o
	}
	objects := make([]*object, 0, len(specs))
	for _, spec := range specs {
		objects = append(objects, newObject(spec, known[spec.Key()]))
	}
	slices.SortFunc(objects, func(a, b *object) int { return cmp.Compare(a.spec.Key(), b.spec.Key()) })
	return objects
}

func newObject(spec *store.Schema, before *object) *object {
	if before != nil && before.spec == spec {
		return before
	}
	o := &object{spec: spec}
	for i := range spec.Spec.BackendRefs {
		o.backends = append(o.backends, spec.BackendKey(&spec.Spec.BackendRefs[i]))
	}
	if before != nil && bytes.Equal(before.spec.Spec.DescriptorSet, spec.Spec.DescriptorSet) {
		o.schema, o.err = before.schema, before.err
		return o
	}
	if o.schema, o.err = Parse(spec.Spec.DescriptorSet); o.err != nil && before != nil {
		o.schema = before.schema
	}
	return o
}

// applyBackends keeps what is known of the backends that stay. One that was edited may
// be another program now: a failure of it is forgotten, and what it told is looked at
// again.
func (r *Registry) applyBackends(specs []*store.Backend) {
	backends := make(map[string]*backend, len(specs))
	for _, spec := range specs {
		b := r.backends[spec.Key()]
		if b == nil {
			b = &backend{key: spec.Key(), spec: spec}
		} else if b.spec != spec {
			b.spec = spec
			r.doubt(b)
		}
		b.named = false
		backends[b.key] = b
	}
	for _, o := range r.objects {
		for _, key := range o.backends {
			if b := backends[key]; b != nil {
				b.named = true
			}
		}
	}
	r.backends = backends
}

// shareObjects lets objects of the same content have one schema, if possible one that was
// there before.
func (r *Registry) shareObjects(before []*object) {
	known := make(map[digest]*Schema)
	for _, b := range r.backends {
		if b.learnt != nil {
			known[b.learnt.digest] = b.learnt
		}
	}
	for _, o := range slices.Concat(before, r.objects) {
		if o.schema == nil {
			continue
		}
		if s := known[o.schema.digest]; s != nil {
			o.schema = s
		}
		known[o.schema.digest] = o.schema
	}
}

// shared is the schema that is known already and has the same content, or s.
func (r *Registry) shared(s *Schema) *Schema {
	for _, o := range r.objects {
		if o.schema != nil && o.schema.digest == s.digest {
			return o.schema
		}
	}
	for _, b := range r.backends {
		if b.learnt != nil && b.learnt.digest == s.digest {
			return b.learnt
		}
	}
	return s
}

// publish makes the view of what is known. It tells whether schemas have changed.
func (r *Registry) publish() bool {
	v := &View{backends: make(map[string]described, len(r.backends))}
	for _, o := range r.objects {
		if len(o.backends) == 0 && o.schema != nil {
			v.every = append(v.every, o.schema)
		}
	}
	for key, b := range r.backends {
		v.backends[key] = r.describe(b, v.every)
	}
	v.sources = r.sources()
	before := r.view.Swap(v)
	return !v.sameSchemas(before)
}

// describe is what a view has of a backend.
func (r *Registry) describe(b *backend, every []*Schema) described {
	d := described{retry: b.retry}
	for _, o := range r.objects {
		if o.schema != nil && slices.Contains(o.backends, b.key) {
			d.schemas = append(d.schemas, o.schema)
		}
	}
	switch {
	case b.named:
		d.final = errNamed
	case b.spec.Spec.Protocol == store.ProtocolHTTP1:
		d.final = errHTTP1
	case b.learnt != nil:
		d.final = errLearnt
		d.schemas = append(d.schemas, b.learnt)
	default:
		d.err = b.err
	}
	d.schemas = append(d.schemas, every...)
	return d
}

// What there is to know of a backend is known, for different reasons.
var (
	errNamed  = fmt.Errorf("%w in the Schema objects that name the backend", ErrNoMethod)
	errLearnt = fmt.Errorf("%w in what the backend's reflection told", ErrNoMethod)
	errHTTP1  = fmt.Errorf("%w: it speaks http1, which has no reflection: make a Schema object that names it (sluice schema push)", ErrNoSchema)
)

// sources lists where schemas come from.
func (r *Registry) sources() []Source {
	var list []Source
	for _, o := range r.objects {
		s := Source{Object: o.spec.Key(), Kind: KindObject, Err: faultText(o.schema, o.err)}
		if o.schema != nil {
			s.Methods = len(o.schema.Methods())
		}
		if len(o.backends) == 0 {
			list = append(list, s)
		}
		for _, key := range o.backends {
			s.Backend = key
			list = append(list, s)
		}
	}
	for key, b := range r.backends {
		if b.learnt == nil && b.err == nil {
			continue
		}
		s := Source{Backend: key, Kind: KindReflection, Version: b.version, Err: faultText(b.learnt, b.err)}
		if b.learnt != nil {
			s.Methods, s.Learnt = len(b.learnt.Methods()), b.at
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Source) int {
		return cmp.Or(cmp.Compare(a.Backend, b.Backend), cmp.Compare(a.Object, b.Object))
	})
	return list
}

// faultText is what a source has to tell: an error, or else what was left out.
func faultText(s *Schema, err error) string {
	if err == nil && s != nil {
		err = errors.Join(s.Faults()...)
	}
	if err == nil {
		return ""
	}
	return err.Error()
}
