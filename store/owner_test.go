package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// owned is what the model knows of a Backend.
type owned struct {
	label   string // what is declared
	owner   OwnerKind
	drained bool
}

// ownerModel is what owners mean, in few words: a map, without revisions, disks and
// snapshots. It is the oracle of the test below.
type ownerModel struct {
	objects map[string]owned
	files   map[string]string // what is known of them since the start: name → label
}

// sync has the files say something else.
func (m *ownerModel) sync(files map[string]string) {
	m.files = files
	for name, o := range m.objects {
		if _, declared := files[name]; !declared && o.owner == OwnerFile {
			delete(m.objects, name)
		}
	}
	for name, label := range files {
		o, there := m.objects[name]
		if !there || o.owner == OwnerFile {
			m.objects[name] = owned{label, OwnerFile, o.drained}
		}
	}
}

// errModel is an error of the model; which one is the store's to say.
var errModel = errors.New("refused")

func (m *ownerModel) apply(name, label string, takeOver bool) error {
	o, there := m.objects[name]
	if there && o.owner == OwnerFile && !takeOver {
		if o.label != label {
			return errModel
		}
		return nil
	}
	m.takeOver(name)
	m.objects[name] = owned{label, OwnerAPI, o.drained}
	return nil
}

// takeOver remembers what the file says of what it loses.
func (m *ownerModel) takeOver(name string) {
	if o := m.objects[name]; o.owner == OwnerFile {
		m.files[name] = o.label
	}
}

func (m *ownerModel) remove(name string) error {
	if o, there := m.objects[name]; !there || o.owner == OwnerFile {
		return errModel
	}
	delete(m.objects, name)
	return nil
}

func (m *ownerModel) drain(name string, drained bool) error {
	o, there := m.objects[name]
	if !there {
		return errModel
	}
	o.drained = drained
	m.objects[name] = o
	return nil
}

func (m *ownerModel) adopt(name string) error {
	o, there := m.objects[name]
	if !there {
		return errModel
	}
	m.takeOver(name)
	o.owner = OwnerAPI
	m.objects[name] = o
	return nil
}

func (m *ownerModel) release(name string) error {
	o, there := m.objects[name]
	label, declared := m.files[name]
	switch {
	case !there, o.owner != OwnerFile && !declared:
		return errModel
	case o.owner != OwnerFile:
		m.objects[name] = owned{label, OwnerFile, o.drained}
	}
	return nil
}

// Whatever files, the API and operators do, in whatever order and with restarts in
// between, the store says of every object what the model says.
func TestOwnersFollowTheModel(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 21))
			s := openStore(t, Options{})
			m := &ownerModel{objects: map[string]owned{}, files: map[string]string{}}
			backend := func(name, label string) *Backend {
				b := &Backend{Meta: Meta{Namespace: "default", Name: name, Labels: map[string]string{"l": label}}}
				b.Spec.SetDefaults()
				b.Spec.Endpoints = []Endpoint{{Address: "a:1", Weight: 1}}
				return b
			}
			write := func(op Op, takeOver bool) error {
				_, err := s.Write(t.Context(), Txn{Ops: []Op{op}, TakeOver: takeOver})
				return err
			}
			for step := range 120 {
				name, label := fmt.Sprintf("b%d", rng.IntN(5)), fmt.Sprint(rng.IntN(3))
				id := ID{BackendKind, "default", name}
				var doing string
				var got, want error
				switch rng.IntN(8) {
				case 0:
					doing = "sync"
					files, set := map[string]string{}, &Set{}
					for i := range 5 {
						if name := fmt.Sprintf("b%d", i); rng.IntN(2) == 0 {
							files[name] = fmt.Sprint(rng.IntN(3))
							set.Backends = append(set.Backends, backend(name, files[name]))
						}
					}
					_, got = s.SyncFiles(t.Context(), set, Author{})
					m.sync(files)
				case 1, 2:
					takeOver := rng.IntN(3) == 0
					doing = fmt.Sprintf("apply %s, take over %v", label, takeOver)
					got, want = write(Op{Apply: backend(name, label)}, takeOver), m.apply(name, label, takeOver)
				case 3:
					doing = "delete"
					got, want = write(Op{ID: id, Delete: true}, false), m.remove(name)
				case 4:
					drained := rng.IntN(2) == 0
					doing = fmt.Sprintf("drain %v", drained)
					got, want = write(setState(id, drainedWhole(drained)), false), m.drain(name, drained)
				case 5:
					doing = "adopt"
					got, want = write(Op{ID: id, Adopt: true}, false), m.adopt(name)
				case 6:
					doing = "release"
					got, want = write(Op{ID: id, Release: true}, false), m.release(name)
				case 7:
					doing = "restart"
					if rng.IntN(3) == 0 {
						s = reopen(t, s)
						m.files = map[string]string{}
					}
				}
				if (got == nil) != (want == nil) {
					t.Fatalf("step %d, %s %s: error %v, want %v", step, doing, name, got, want)
				}
				if difference := m.differs(s.Snapshot()); difference != "" {
					t.Fatalf("step %d, %s %s: %s", step, doing, name, difference)
				}
			}
		})
	}
}

// differs says what is not as in the model, "" when all is.
func (m *ownerModel) differs(snap *Snapshot) string {
	if got := snap.Len(""); got != len(m.objects) {
		return fmt.Sprintf("%d objects, want %d", got, len(m.objects))
	}
	for name, want := range m.objects {
		o, there := snap.Get(ID{BackendKind, "default", name})
		if !there {
			return name + " is not there"
		}
		got := owned{o.Resource.Metadata().Labels["l"], o.Owner.Kind, o.State.DrainOf("") != nil}
		if got != want {
			return fmt.Sprintf("%s is %+v, want %+v", name, got, want)
		}
	}
	return ""
}
