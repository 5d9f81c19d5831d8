package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

func (p *program) editCommand() *cobra.Command {
	var w written
	var namespace string
	var takeOver bool
	cmd := &cobra.Command{
		Use:   "edit KIND NAME",
		Short: "Change an object in an editor",
		Long: `Open an object's manifest in an editor (SLUICE_EDITOR, VISUAL, EDITOR, or vi) and
apply what was saved. With a fault in it, the editor opens again and shows the
fault; saved without a change, nothing happens. When somebody else has changed the
object meanwhile, both versions are shown and yours is kept in a file.`,
		Example: "  sluice edit route cart --reason 'longer timeout'",
		Args:    wants(2, 2),
	}
	w.addReason(cmd)
	w.addUnresolved(cmd)
	p.addWait(cmd, &w.peers)
	cmd.Flags().BoolVar(&takeOver, "take-over", false, "adopt the object if a file of the server declares it")
	addNamespace(cmd, &namespace, defaultNamespace)
	output := p.addFormat(cmd, true)
	cmd.ValidArgsFunction = p.completeRefs(1)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		ref, err := parseRef(namespace, args)
		if err != nil {
			return err
		}
		got, err := ask(c.ctx, c.resources.Get, &adminv1.GetRequest{Ref: ref})
		if err != nil {
			return err
		}
		if owner := got.GetObject().GetOwner(); ofFile(owner) && !takeOver {
			return fmt.Errorf("%s is declared by %s and read-only here: change the file, or adopt the object with --take-over",
				refID(ref), ownerText(owner))
		}
		e := &editing{call: c, ref: got.GetObject().GetRef(), apply: &adminv1.ApplyRequest{
			Reason: w.reason, AllowUnresolved: w.unresolved, TakeOver: takeOver, Wait: w.peers.is,
		}}
		if e.saved, e.bytes, err = editable(got.GetObject()); err != nil {
			return err
		}
		return e.run(output)
	})
	return cmd
}

// keptBytes stands in an editor for the descriptors of a Schema, which nobody can edit.
const keptBytes = "as-it-is"

// editable is a manifest to edit; its resourceVersion makes Apply refuse it when
// somebody else was faster. Bytes are what the text has keptBytes for.
func editable(o *adminv1.Object) (manifest, bytes string, err error) {
	n, err := readManifest(o.GetManifest())
	if err != nil {
		return "", "", err
	}
	bare(n, o.GetCreated())
	if metadata := lookup(n, "metadata"); metadata != nil {
		set(metadata, "resourceVersion", text(o.GetRevision()))
	}
	if o.GetRef().GetKind() == schemaKind {
		bytes = word(n, "spec", "descriptorSet")
		set(lookup(n, "spec"), "descriptorSet", text(keptBytes))
	}
	data, err := marshalYAML(n)
	return string(data), bytes, err
}

// whole is an edited text with the bytes that were left out of it.
func (e *editing) whole() string {
	if e.bytes == "" {
		return e.saved
	}
	return strings.Replace(e.saved, "descriptorSet: "+keptBytes, "descriptorSet: "+e.bytes, 1)
}

// editing is one object between the editor and the server.
type editing struct {
	*call
	ref   *adminv1.Ref
	apply *adminv1.ApplyRequest
	saved string // as it was last
	file  string
	bytes string // what the text has for keptBytes

	faults []*adminv1.Fault // of what was saved
}

// run edits until the server accepts what was saved, or nothing new was.
func (e *editing) run(output *format) error {
	f, err := os.CreateTemp("", "sluice-*.yaml") // 0600
	if err != nil {
		return fmt.Errorf("edit %s: %w", refID(e.ref), err)
	}
	e.file = f.Name()
	if err := f.Close(); err != nil {
		return err
	}
	for {
		text, err := e.open(e.comments() + e.saved)
		if err != nil {
			return err
		}
		text = withoutFaults(text)
		if text == e.saved || strings.TrimSpace(text) == "" {
			return e.unchanged()
		}
		e.saved = text
		e.apply.Text = e.whole()
		if e.faults = e.ownFaults(); len(e.faults) > 0 {
			continue // the server would not say it as well, if it can be told at all
		}
		response, err := ask(e.ctx, e.resources.Apply, e.apply)
		if err == nil {
			os.Remove(e.file)
			return e.printWrite(output, response, false)
		}
		faults, _ := detailOf[*adminv1.Faults](err)
		if e.faults = faults.GetFaults(); len(e.faults) == 0 {
			return e.refused(err)
		}
	}
}

// ownFaults are those of an edited text that make it no edited version of the object.
func (e *editing) ownFaults() []*adminv1.Fault {
	if line, column, message := notUTF8([]byte(e.saved)); message != "" {
		return []*adminv1.Fault{{Line: uint32(line), Column: uint32(column), Message: message}}
	}
	m := &manifests{text: e.saved, parts: []part{{file: e.file}}}
	refs, err := m.refs()
	if err != nil {
		return nil // the server has a place for it
	}
	for _, ref := range refs {
		if refID(ref) != refID(e.ref) {
			return []*adminv1.Fault{{Field: "metadata", Message: fmt.Sprintf(
				"want %s: kind, name and namespace cannot be changed here; sluice apply declares another object", refID(e.ref))}}
		}
	}
	return nil
}

// unchanged ends what was saved as it was. Faults that it still has are told as apply
// tells them, of the file that is kept.
func (e *editing) unchanged() error {
	if len(e.faults) > 0 {
		if err := os.WriteFile(e.file, []byte(e.whole()), 0o600); err != nil { // without the comments
			return err
		}
		for _, fault := range e.faults {
			fault.File = e.file
			e.note("%s", printable(faultLine(fault)))
		}
		return fmt.Errorf("edit %s: not applied, it still has %s; your version is in %s", refID(e.ref), count(len(e.faults), "fault"), e.file)
	}
	os.Remove(e.file)
	e.note("%s unchanged", refID(e.ref))
	return nil
}

// refused shows what is there beside what was wanted, and keeps the latter.
func (e *editing) refused(err error) error {
	e.showConflict(&manifests{text: e.whole()}, err)
	if kept := os.WriteFile(e.file, []byte(e.whole()), 0o600); kept != nil {
		return errors.Join(err, kept)
	}
	e.note("your version is in %s", e.file)
	return err
}

// open lets the user edit a text.
func (e *editing) open(text string) (string, error) {
	if err := os.WriteFile(e.file, []byte(text), 0o600); err != nil {
		return "", err
	}
	editor := cmp.Or(e.Getenv("SLUICE_EDITOR"), e.Getenv("VISUAL"), e.Getenv("EDITOR"), "vi")
	cmd := exec.CommandContext(e.ctx, "sh", "-c", editor+` "$1"`, "editor", e.file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.in, e.notes, e.notes
	if file, ok := e.out.(*os.File); ok {
		cmd.Stdout = file // an editor wants the terminal
	}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("edit %s with %s: %w", refID(e.ref), editor, err)
	}
	data, err := os.ReadFile(e.file)
	return string(data), err
}

// faultMark begins the lines that tell of faults.
const faultMark = "# fault: "

// comments are the faults of what was saved, for the editor to show. Their lines are
// those of the text below the comments.
func (e *editing) comments() string {
	var comments strings.Builder
	for _, fault := range e.faults {
		shown := &adminv1.Fault{Field: fault.GetField(), Message: fault.GetMessage()}
		line := printable(faultLine(shown))
		if n := fault.GetLine(); n > 0 {
			line = fmt.Sprintf("line %d: %s", int(n)+len(e.faults), line)
		}
		comments.WriteString(faultMark + line + "\n")
	}
	return comments.String()
}

func withoutFaults(text string) string {
	var rest strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, faultMark) {
			rest.WriteString(line)
		}
	}
	return rest.String()
}
