package cli

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

// keyBytes is how long a key is.
const keyBytes = 32

func (p *program) keyringCommand() *cobra.Command {
	return group(
		&cobra.Command{
			Use:   "keyring",
			Short: "List and change the keys that encrypt gossip",
			Long: `List and change, on all gateways that live, the keys that encrypt what they tell each
other. To change the key: generate a new one, add it, use it, and remove the old one;
look at the list in between. A key is read from a file or from standard input, never
from the command line, which others can see; what is shown of it is its fingerprint.
Each server writes its key file anew; where it cannot, it says so.`,
			Example: `  sluice cluster keyring generate > new.key
  sluice cluster keyring add new.key
  sluice cluster keyring list
  sluice cluster keyring use new.key
  sluice cluster keyring remove FINGERPRINT`,
		},
		p.listKeysCommand(), p.generateKeyCommand(), p.addKeyCommand(), p.useKeyCommand(), p.removeKeyCommand(),
	)
}

func (p *program) generateKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "generate",
		Short: "Make a new key, and print it",
		Long: `Make a new key and print it on a line of its own, as --gossip-key-file takes it. No
server is asked. Whoever has the key can be a gateway: keep it as you keep a password.
Its fingerprint goes to standard error.`,
		Example: "  (umask 077; sluice cluster keyring generate > gossip.key)",
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			key := make([]byte, keyBytes)
			_, _ = rand.Read(key) // never fails
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), base64.StdEncoding.EncodeToString(key)); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.ErrOrStderr(), "the fingerprint of the key is "+keyPrint(key))
			return err
		},
	}
}

func (p *program) listKeysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "Tell which keys each gateway has, by their fingerprints", Args: wants(0, 0)}
	output := p.addFormat(cmd, false)
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		all, err := ask(c.ctx, c.cluster.ListKeys, &adminv1.ListKeysRequest{})
		if err != nil {
			return err
		}
		return c.printKeys(output, all)
	})
	return cmd
}

func (p *program) addKeyCommand() *cobra.Command {
	return p.changeKeyCommand(&cobra.Command{
		Use:     "add FILE|-",
		Short:   "Make all gateways understand one more key",
		Example: "  sluice cluster keyring add new.key",
	}, func(c *call, word, reason string) (*adminv1.KeysResponse, error) {
		key, err := readKey(word, c.in)
		if err != nil {
			return nil, err
		}
		return ask(c.ctx, c.cluster.AddKey, &adminv1.AddKeyRequest{Key: key, Reason: reason})
	})
}

func (p *program) useKeyCommand() *cobra.Command {
	return p.changeKeyCommand(&cobra.Command{
		Use:     "use FINGERPRINT|FILE|-",
		Short:   "Make all gateways send with a key that they have",
		Example: "  sluice cluster keyring use new.key",

		ValidArgsFunction: p.completeFingerprints,
	}, func(c *call, word, reason string) (*adminv1.KeysResponse, error) {
		key, err := c.printOf(word)
		if err != nil {
			return nil, err
		}
		return ask(c.ctx, c.cluster.UseKey, &adminv1.UseKeyRequest{Key: key, Reason: reason})
	})
}

func (p *program) removeKeyCommand() *cobra.Command {
	return p.changeKeyCommand(&cobra.Command{
		Use:     "remove FINGERPRINT|FILE|-",
		Short:   "Make all gateways forget a key that none of them sends with",
		Example: "  sluice cluster keyring remove old.key",

		ValidArgsFunction: p.completeFingerprints,
	}, func(c *call, word, reason string) (*adminv1.KeysResponse, error) {
		key, err := c.printOf(word)
		if err != nil {
			return nil, err
		}
		return ask(c.ctx, c.cluster.RemoveKey, &adminv1.RemoveKeyRequest{Key: key, Reason: reason})
	})
}

// changeKeyCommand is a command that asks all members to do something with a key.
func (p *program) changeKeyCommand(cmd *cobra.Command, do func(c *call, word, reason string) (*adminv1.KeysResponse, error)) *cobra.Command {
	var reason string
	cmd.Args = wants(1, 1)
	cmd.Flags().StringVar(&reason, "reason", "", "`why`, for the audit log")
	output := p.addFormat(cmd, false)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		if _, ok := parseKey(strings.TrimSpace(args[0])); ok {
			return usageErrorf("a key on the command line is seen by others of this machine: put it into a file, or - for standard input; this one is not secret any more")
		}
		all, err := do(c, args[0], reason)
		if err != nil {
			return err
		}
		if err := c.printKeys(output, all); err != nil {
			return err
		}
		c.noteAbsent(all.GetAnswers())
		return undone(all.GetAnswers())
	})
	return cmd
}

// parseKey is the key that a word is.
func parseKey(word string) (key []byte, ok bool) {
	key, err := base64.StdEncoding.DecodeString(word)
	return key, err == nil && len(key) == keyBytes
}

// keyPrint is the fingerprint of a key, as servers have it: the first eight digits of its
// SHA-256.
func keyPrint(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}

// printOf is the fingerprint that a word is, or that of the key in the file of that name:
// the key itself need not travel.
func (c *call) printOf(word string) (string, error) {
	if sum, err := hex.DecodeString(word); err == nil && len(sum) == 4 {
		return strings.ToLower(word), nil
	}
	text, err := readKey(word, c.in)
	if err != nil {
		return "", err
	}
	key, _ := parseKey(text)
	return keyPrint(key), nil
}

// readKey reads the one key of a file. Empty lines and remarks are left out, as a server
// does.
func readKey(file string, stdin io.Reader) (string, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", openError(file, err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxSecret+1))
	if err != nil {
		return "", openError(file, err)
	}
	var keys []string
	for line := range strings.Lines(string(text)) {
		word, _, _ := strings.Cut(line, "#")
		if word = strings.TrimSpace(word); word != "" {
			keys = append(keys, word)
		}
	}
	switch {
	case len(text) > maxSecret:
		return "", fmt.Errorf("read %s: more than %d bytes, limit %[2]d", file, maxSecret)
	case len(keys) != 1:
		return "", fmt.Errorf("read %s: it has %s, want 1", file, count(len(keys), "key"))
	}
	if _, ok := parseKey(keys[0]); !ok {
		return "", fmt.Errorf("read %s: not a key: want %d bytes in base64, as sluice cluster keyring generate makes them", file, keyBytes)
	}
	return keys[0], nil
}

// printKeys has a row for each member.
func (c *call) printKeys(output *format, all *adminv1.KeysResponse) error {
	if output.is != asTable {
		return c.structured(output, all)
	}
	t := newTable("NODE", "HOST", "SENDS WITH", "UNDERSTANDS, TOO", "PROBLEM")
	first := map[string]bool{}
	for _, a := range all.GetAnswers() {
		var sends, others string
		if keys := a.GetFingerprints(); len(keys) > 0 {
			sends, others = keys[0], strings.Join(keys[1:], ", ")
			first[sends] = true
		}
		problem := a.GetProblem()
		if a.GetWarning() != "" {
			problem = strings.TrimPrefix(problem+"; "+a.GetWarning(), "; ")
		}
		t.add(a.GetNode(), a.GetHost(), sends, others, problem)
	}
	if err := t.write(c.out, ""); err != nil {
		return err
	}
	if len(first) > 1 {
		c.note("warning: not all gateways send with the same key; sluice cluster keyring use makes them")
	}
	return nil
}

// noteAbsent names those that did not take part, as they do not live.
func (c *call) noteAbsent(answers []*adminv1.KeyAnswer) {
	for _, a := range answers {
		if len(a.GetFingerprints()) == 0 && a.GetProblem() == "" && a.GetWarning() != "" {
			c.note("warning: %s (%s) is %s", a.GetNode(), a.GetHost(), a.GetWarning())
		}
	}
}

// undone is an error when a member has not done what was asked of all.
func undone(answers []*adminv1.KeyAnswer) error {
	n := 0
	for _, a := range answers {
		if a.GetProblem() != "" {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("not done by %d of %s: see what they say, and ask again", n, count(len(answers), "gateway"))
}
