package store

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"
)

// plan is a transaction before it is committed: what each object would become. It
// belongs to whoever writes.
type plan struct {
	store    *Store
	txn      *Txn
	base     *Snapshot
	now      time.Time
	order    []ID            // as they were planned
	planned  map[ID]*Object  // not stored yet: they may be changed
	shadowed map[ID]fileWord // the store's own map until it is copied
	copied   bool            // shadowed is
	warnings []string
	unsaid   int // warnings beyond maxFaults

	merging    bool           // it takes in what is in force elsewhere: nothing is refused for its content
	reasserted map[ID]*Object // the tombstones that were not obeyed
	lost       map[ID]*Object // of the changes that made a version give way
	forgotten  map[ID]bool    // nothing is left of them

	restated map[ID]bool // they are said anew though nothing has changed

	restored map[ID]bool // they have the sides of an earlier version, with the rest of it

	hasTargeted bool
	targeted    map[ID][]*Object // by policies, once they were asked for

	// Made by finish.
	clock     Revision // the highest revision of the changes
	first     Revision // the lowest that was made here, but for first words of files
	made      Revision // the highest that was made here
	changes   []*Change
	touched   []*Object // that changed in what is no change: the line of a file, a vector
	unchanged []ID
	next      *Snapshot
}

func (s *Store) newPlan(txn *Txn) *plan {
	return &plan{
		store: s, txn: txn, base: s.Snapshot(), now: stamp(s.opts.Now()),
		planned: map[ID]*Object{}, shadowed: s.shadowed,
		reasserted: map[ID]*Object{}, lost: map[ID]*Object{}, forgotten: map[ID]bool{},
		restored: map[ID]bool{}, restated: map[ID]bool{},
	}
}

func (p *plan) warn(format string, args ...any) {
	if len(p.warnings) == maxFaults {
		p.unsaid++
		return
	}
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// current is the object as it would be by now, or its tombstone; nil when there is
// neither.
func (p *plan) current(id ID) *Object {
	if o := p.planned[id]; o != nil {
		return o
	}
	return p.base.find(id)
}

// edit is the object to be changed: what current is, or a new one.
func (p *plan) edit(id ID) *Object {
	if o := p.planned[id]; o != nil {
		return o
	}
	o := &Object{ID: id, Owner: Owner{Kind: OwnerAPI}, Created: p.now, Deleted: true}
	if old := p.base.find(id); old != nil {
		o = old.copy()
	}
	p.order = append(p.order, id)
	p.planned[id] = o
	return o
}

// do plans one operation.
func (p *plan) do(op *Op) error {
	id, err := op.target()
	if err != nil {
		return err
	}
	if err := p.expect(id, op.expected()); err != nil {
		return err
	}
	switch {
	case op.Apply != nil:
		return p.apply(id, op.Apply)
	case op.Exact != nil:
		return p.exact(id, op.Exact)
	case op.Settle:
		return p.settle(id)
	}
	if o := p.current(id); !o.live() {
		return &NotFoundError{id}
	}
	switch {
	case op.Delete:
		return p.remove(id)
	case op.State != nil:
		return p.state(id, op.State)
	case op.Adopt:
		return p.adopt(id)
	default:
		return p.release(id)
	}
}

// target is the object that op is about.
func (op *Op) target() (ID, error) {
	wishes := 0
	for _, wish := range [...]bool{op.Apply != nil, op.Delete, op.State != nil, op.Exact != nil, op.Adopt, op.Release, op.Settle} {
		if wish {
			wishes++
		}
	}
	if wishes != 1 {
		return ID{}, fmt.Errorf("an operation on %s asks for %d things, want one", op.ID, wishes)
	}
	id := op.ID
	switch {
	case op.Apply != nil:
		id = ResourceID(op.Apply)
	case op.Exact != nil:
		id = op.Exact.ID
	}
	id, err := id.normal()
	if err != nil {
		return id, Faults{{Message: err.Error()}}
	}
	return id, nil
}

func (op *Op) expected() string {
	if op.IfRevision == "" && op.Apply != nil {
		return op.Apply.Metadata().ResourceVersion
	}
	return op.IfRevision
}

// expect refuses an operation against another revision than the stored one. What the
// transaction itself has planned does not count.
func (p *plan) expect(id ID, revision string) error {
	if revision == "" {
		return nil
	}
	o := p.base.find(id)
	if o.live() && o.Revision.String() == revision {
		return nil
	}
	return &ConflictError{ID: id, Expected: revision, Current: o}
}

// apply declares an object by the API.
func (p *plan) apply(id ID, r Resource) error {
	if registration, ok := r.(*Registration); ok {
		if err := p.checkRegistration(id, registration); err != nil {
			return err
		}
	}
	old := p.current(id)
	next := &Object{ID: id}
	if err := next.setResource(ownCopy(r, old, p.now)); err != nil {
		return err
	}
	if old.live() && old.Owner.OfFile() && !p.txn.TakeOver {
		if old.manifest != next.manifest {
			return &OwnedError{id, old.Owner}
		}
		p.edit(id)
		return nil
	}
	p.declare(id, next, Owner{Kind: OwnerAPI})
	return nil
}

// declare gives an object what next declares, and its owner. Whoever declares what
// another node's API has declared already changes nothing.
func (p *plan) declare(id ID, next *Object, owner Owner) {
	o := p.edit(id)
	if o.Deleted {
		o.Created = p.now
	} else if o.Owner.Kind == OwnerPeer && owner.Kind == OwnerAPI && o.manifest == next.manifest {
		owner = o.Owner
	}
	if o.Owner.Kind == OwnerFile && !o.Deleted && owner.Kind != OwnerFile {
		p.shadow(id, &fileWord{o.Resource, o.Owner.File})
	}
	if o.Deleted || o.manifest != next.manifest || owner.Kind != OwnerFile {
		o.elsewhere = nil
	}
	if o.Deleted || o.manifest != next.manifest {
		o.Resource, o.manifest, o.Deleted = next.Resource, next.manifest, false
	}
	o.Owner, o.FileNode = owner, p.declarer(owner, o.FileNode)
}

// declarer is the node whose file declares what has that owner: this one, the one that it
// was before, or none.
func (p *plan) declarer(owner Owner, was string) string {
	switch {
	case owner.Kind == OwnerFile:
		return p.store.node
	case owner.OfFile():
		return was
	}
	return ""
}

// fileWord is what a file declares of an object that the API owns.
type fileWord struct {
	resource Resource
	file     string // file:line
}

// shadow notes a file's word, nil when the object is the file's again.
func (p *plan) shadow(id ID, word *fileWord) {
	if !p.copied {
		p.shadowed, p.copied = maps.Clone(p.shadowed), true
	}
	if word == nil {
		delete(p.shadowed, id)
		return
	}
	p.shadowed[id] = *word
}

// ownCopy is the resource as it is kept: without the revision that it was read from,
// and as old as the object that it declares anew.
func ownCopy(r Resource, old *Object, now time.Time) Resource {
	return withMeta(r, func(m *Meta) {
		keepMeta(m)
		if m.CreationTimestamp.IsZero() {
			m.CreationTimestamp = now.Truncate(time.Second)
			if old.live() {
				m.CreationTimestamp = old.Resource.Metadata().CreationTimestamp
			}
		}
	})
}

// keepMeta leaves out what only the text meant.
func keepMeta(m *Meta) {
	m.ResourceVersion = ""
	if m.Namespace == "" {
		m.Namespace = DefaultNamespace
	}
}

// withMeta is a copy of a resource with other metadata.
func withMeta(r Resource, change func(*Meta)) Resource {
	switch r := r.(type) {
	case *GRPCRoute:
		c := *r
		change(&c.Meta)
		return &c
	case *HTTPRoute:
		c := *r
		change(&c.Meta)
		return &c
	case *Backend:
		c := *r
		change(&c.Meta)
		return &c
	case *RPCPolicy:
		c := *r
		change(&c.Meta)
		return &c
	case *Registration:
		c := *r
		change(&c.Meta)
		return &c
	case *Schema:
		c := *r
		change(&c.Meta)
		return &c
	}
	return r
}

// exact gives an object the content of an earlier version.
func (p *plan) exact(id ID, to *Object) error {
	if id.Kind == RegistrationKind {
		return Faults{{Message: fmt.Sprintf("%s: a process that has ended is not brought back; it registers itself when it begins", id)}}
	}
	old := p.current(id)
	if to.Deleted || to.Resource == nil {
		if !old.live() {
			p.edit(id)
			return nil
		}
		return p.remove(id)
	}
	next := &Object{ID: id}
	if err := next.setResource(withMeta(to.Resource, keepMeta)); err != nil {
		return err
	}
	owner := Owner{Kind: OwnerAPI}
	if old.live() && old.Owner.OfFile() {
		if old.manifest == next.manifest {
			owner = old.Owner
		} else if !p.txn.TakeOver {
			return &OwnedError{id, old.Owner}
		}
	}
	p.declare(id, next, owner)
	p.edit(id).State = to.State.normal()
	p.restored[id] = true
	return nil
}

// remove deletes an object.
func (p *plan) remove(id ID) error {
	o := p.edit(id)
	if o.Owner.OfFile() && (o.Owner.Kind == OwnerFile || !p.txn.TakeOver) {
		return &OwnedError{id, o.Owner}
	}
	if word, declared := p.shadowed[id]; declared {
		p.warn("%s: %s declares it, too: it comes back when the files are read again", id, printable(word.file))
	}
	o.bury()
	return nil
}

// settle gives up the versions that an object won over.
func (p *plan) settle(id ID) error {
	if p.current(id) == nil {
		return &NotFoundError{id}
	}
	p.edit(id).Lost = nil
	return nil
}

// bury makes a tombstone of an object.
func (o *Object) bury() {
	o.Deleted, o.Resource, o.State, o.elsewhere = true, nil, State{}, nil
	o.manifest = [len(o.manifest)]byte{}
}

// state gives an object another state.
func (p *plan) state(id ID, change func(State, *Object) (State, error)) error {
	o := p.edit(id)
	state, err := change(o.State.normal(), o)
	if err != nil {
		return err
	}
	state = state.normal()
	if faults := p.checkState(o, state); len(faults) > 0 {
		return faults
	}
	o.State = state
	return nil
}

// checkState refuses what an object of that kind cannot be told, and endpoints that
// are not there to be drained.
func (p *plan) checkState(o *Object, state State) Faults {
	_, isRoute := o.Resource.(Route)
	b, isBackend := o.Resource.(*Backend)
	var list faultList
	if state.Disabled && !isRoute {
		list.add(Position{}, "disabled", "%s: only a route can be disabled", o.ID)
	}
	if len(state.Splits) > 0 && !isRoute {
		list.add(Position{}, "splits", "%s: only a route can be split", o.ID)
	}
	switch {
	case len(state.Drains) == 0:
	case !isBackend:
		list.add(Position{}, "drained", "%s: only a Backend can be drained", o.ID)
	case len(state.Drains) > maxDrains:
		list.add(Position{}, "endpoints", "%s: %d endpoints are drained, limit %d", o.ID, len(state.Drains), maxDrains)
	default:
		p.checkDrains(b, o.State.Drains, state.Drains, &list)
	}
	return list.faults()
}

// checkDrains refuses to drain what is not there. What a name server answers nobody
// knows here, and what is drained already may have gone meanwhile.
func (p *plan) checkDrains(b *Backend, old, drains []Drain, list *faultList) {
	declared := b.Spec.addresses()
	var registered map[string]bool
	for _, d := range drains {
		switch {
		case d.Endpoint == "", declared[d.Endpoint], drainOf(old, d.Endpoint) != nil:
			continue
		case b.Spec.DNS != nil && checkEndpoint(d.Endpoint) == "":
			continue
		}
		if registered == nil {
			registered = p.registered(ResourceID(b))
		}
		if !registered[d.Endpoint] {
			list.add(Position{}, "endpoints", "%s has no endpoint %s", ResourceID(b), quote(d.Endpoint))
		}
	}
}

// adopt makes the API the owner.
func (p *plan) adopt(id ID) error {
	o := p.edit(id)
	if o.Owner.Kind == OwnerFile {
		p.shadow(id, &fileWord{o.Resource, o.Owner.File})
	}
	if o.Owner.OfFile() {
		o.Owner, o.FileNode, o.elsewhere = Owner{Kind: OwnerAPI}, "", nil
	}
	return nil
}

// release gives an object back to the file that declares it, and takes on what the
// file says.
func (p *plan) release(id ID) error {
	word, declared := p.shadowed[id]
	o := p.edit(id)
	switch {
	case o.Owner.Kind == OwnerFile:
		return nil
	case !declared:
		return Faults{{Message: fmt.Sprintf("%s: no file of this node declares it; delete it if nobody needs it", id)}}
	}
	if err := o.setResource(word.resource); err != nil {
		return err
	}
	o.Owner, o.FileNode, o.elsewhere = Owner{Kind: OwnerFile, File: word.file}, p.store.node, nil
	p.shadow(id, nil)
	return nil
}

// fileLine is where a text declares a resource.
func fileLine(r Resource) string {
	origin := r.Metadata().Origin
	origin.Column = 0
	return origin.String()
}

// finish turns what is planned into changes, and refuses what leads nowhere.
func (p *plan) finish() error {
	for _, id := range p.order {
		if o := p.planned[id]; o.live() && !p.merging && !p.restored[id] {
			p.settleSides(p.base.find(id), o)
		}
	}
	if p.merging {
		p.sortMerged()
	} else {
		p.sort()
	}
	p.next = p.remembered(p.base.with(p.base.seq+uint64(len(p.changes)), p.versions()))
	if n := p.next.Len(""); n > maxObjects && n > p.base.Len("") {
		return Faults{{Message: fmt.Sprintf("%d objects, limit %d", n, maxObjects)}}
	}
	if err := p.boundDescriptors(); err != nil {
		return err
	}
	if p.merging {
		return nil
	}
	if err := p.resolve(); err != nil {
		return err
	}
	if check := p.store.opts.Check; check != nil && len(p.changes) > 0 {
		ids := make([]ID, len(p.changes))
		for i, c := range p.changes {
			ids[i] = c.ID
		}
		if faults := check(p.next.Effective(), ids); len(faults) > 0 {
			return faults
		}
	}
	return nil
}

// boundDescriptors bounds the memory that all schemas take together.
func (p *plan) boundDescriptors() error {
	size := func(s *Snapshot) (n int) {
		for _, o := range s.live[schemas] {
			n += len(o.Resource.(*Schema).Spec.DescriptorSet)
		}
		return n
	}
	limit := p.store.opts.limits.descriptors
	if n := size(p.next); n > limit && n > size(p.base) {
		return Faults{{Message: fmt.Sprintf("%d bytes of descriptors in all Schemas, limit %d", n, limit)}}
	}
	return nil
}

// sort parts what is planned into changes, what is not worth one, and the rest, and
// stamps the changes.
func (p *plan) sort() {
	revision := p.store.clock.peek()
	for _, id := range p.order {
		old, o := p.base.find(id), p.planned[id]
		switch {
		case old == nil && o.Deleted:
			p.unchanged = append(p.unchanged, id)
		case old != nil && old.same(o) && len(old.Lost) == len(o.Lost) && !p.restated[id]:
			p.unchanged = append(p.unchanged, id)
			if old.Owner != o.Owner || old.FileNode != o.FileNode || !maps.Equal(old.Vector, o.Vector) {
				p.touched = append(p.touched, o)
			}
		case old == nil && o.Owner.Kind == OwnerFile:
			p.stamp(o, firstWord(p.store.clock.name(), o))
			p.note(old, o)
		default:
			p.stamp(o, revision)
			p.note(old, o)
		}
	}
}

// firstWall is when files declare what nobody has heard of, in milliseconds since 1970.
const firstWall = 1

// firstWord is the revision of what a file declares and nobody has heard of: older than
// all that was ever done. A node that joins others with the files that they have says
// nothing new by that, least of all that splits and drains are to end. Other contents
// have another revision, also at a node that has lost its own.
func firstWord(node string, o *Object) Revision {
	return Revision{Wall: firstWall, Counter: binary.BigEndian.Uint32(o.manifest[:4]), Node: node}
}

// stamp says who changed an object, and when.
func (p *plan) stamp(o *Object, revision Revision) {
	o.Changed, o.Author, o.Lost = p.now, p.txn.Author, nil
	o.Revision = Revision{}
	if !p.txn.DryRun {
		o.Revision, o.Vector = revision, o.Vector.with(revision).latest(maxPast, nil)
		p.makes(revision)
	}
	o.dateState()
}

// makes notes a revision that is made here. First words of files are older than all.
func (p *plan) makes(r Revision) {
	if r.after(p.clock) {
		p.clock = r
	}
	if r.after(p.made) {
		p.made = r
	}
	if r.Wall > firstWall && (p.first.IsZero() || p.first.after(r)) {
		p.first = r
	}
}

// note makes a change of what is planned.
func (p *plan) note(old, o *Object) {
	c := &Change{Time: p.now, Action: p.action(old, o), ID: o.ID, After: o, Lost: p.lost[o.ID]}
	if old.live() {
		c.Before = old
	}
	if !p.txn.DryRun {
		c.Seq = p.base.seq + uint64(len(p.changes)) + 1
	}
	p.changes = append(p.changes, c)
}

// action is what a change is called.
func (p *plan) action(old, o *Object) string {
	switch {
	case p.reasserted[o.ID] != nil:
		return ActionReassert
	case p.lost[o.ID] != nil:
		return ActionConflict
	case p.txn.Action != "":
		return p.txn.Action
	case old != nil && old.same(o) && len(old.Lost) > len(o.Lost):
		return ActionSettle
	case o.Deleted:
		return ActionDelete
	case !old.live():
		return ActionCreate
	case !old.Owner.OfFile() && o.Owner.OfFile():
		return ActionRelease
	case old.Owner.OfFile() && !o.Owner.OfFile() && old.manifest == o.manifest:
		return ActionAdopt
	case p.merging && old.manifest == o.manifest:
		return stateAction(old.State, o.State)
	}
	return ActionUpdate
}

// versions are the new versions of objects, for a snapshot.
func (p *plan) versions() []*Object {
	all := slices.Clone(p.touched)
	for _, c := range p.changes {
		all = append(all, c.After)
	}
	return all
}

// resolve refuses references that lead nowhere because of this transaction.
func (p *plan) resolve() error {
	faults := p.unresolved()
	if len(faults) == 0 {
		return nil
	}
	if !p.txn.AllowUnresolved {
		return faults
	}
	for _, f := range faults {
		p.warn("%s", f)
	}
	return nil
}

func (p *plan) result() *Result {
	r := &Result{Seq: p.next.seq, Unchanged: p.unchanged, Warnings: p.warnings}
	if p.unsaid > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("and %d more warnings", p.unsaid))
	}
	if p.txn.DryRun {
		r.Seq = p.base.seq
	}
	for _, c := range p.changes {
		r.Changes = append(r.Changes, *c)
	}
	return r
}
