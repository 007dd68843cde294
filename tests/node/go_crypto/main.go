// The library that a daprd encrypts with, as a command: documents in the scheme dapr.io/enc/v1, with keys in a folder.
//
//	go-kit-crypto encrypt FOLDER KEY ALGORITHM CIPHER [NAME]    standard input to standard output; NAME is what the document calls
//	                                                            its key ("-" for nothing)
//	go-kit-crypto decrypt FOLDER [KEY]                          and back, with the key that the document names or with KEY
//	go-kit-crypto fixtures FOLDER                               prints documents of known content as JSON, and the keys
//	                                                            rsa.pem and aes that open them
//
// A key's name is that of its file, whose content is whatever the library reads: PEM, JWK, base64 or bytes.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dapr/kit/crypto"
	enc "github.com/dapr/kit/schemes/enc/v1"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("see the beginning of main.go")
	}
	keys := keyring(args[1])
	switch {
	case args[0] == "encrypt" && len(args) >= 5:
		name := ""
		if len(args) > 5 {
			name = args[5]
		}
		return copied(keys.encrypt(os.Stdin, args[2], args[3], args[4], name))
	case args[0] == "decrypt":
		options := enc.DecryptOptions{UnwrapKeyFn: keys.unwrap}
		if len(args) > 2 {
			options.KeyName = args[2]
		}
		return copied(enc.Decrypt(os.Stdin, options))
	case args[0] == "fixtures":
		return keys.fixtures()
	default:
		return errors.New("see the beginning of main.go")
	}
}

func copied(stream io.Reader, err error) error {
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, stream)
	return err
}

// keyring is a folder of keys.
type keyring string

func (folder keyring) key(name string) (jwk.Key, error) {
	raw, err := os.ReadFile(filepath.Join(string(folder), name))
	if err != nil {
		return nil, err
	}
	return crypto.ParseKey(raw, "")
}

func (folder keyring) encrypt(in io.Reader, key, algorithm, cipher, name string) (io.Reader, error) {
	chosen := enc.Cipher(cipher)
	return enc.Encrypt(in, enc.EncryptOptions{
		WrapKeyFn:         folder.wrap,
		Algorithm:         enc.KeyAlgorithm(algorithm),
		KeyName:           key,
		DecryptionKeyName: name,
		OmitKeyName:       name == "-",
		Cipher:            &chosen,
	})
}

// wrap is what a daprd's component with local keys does.
func (folder keyring) wrap(file []byte, algorithm, name string, nonce []byte) ([]byte, []byte, error) {
	key, err := folder.key(name)
	if err != nil {
		return nil, nil, err
	}
	// Of a pair the public half encrypts; a symmetric key is its own.
	if public, err := key.PublicKey(); err == nil {
		key = public
	}
	return crypto.Encrypt(file, algorithm, key, nonce, nil)
}

func (folder keyring) unwrap(wrapped []byte, algorithm, name string, nonce, tag []byte) ([]byte, error) {
	key, err := folder.key(name)
	if err != nil {
		return nil, err
	}
	return crypto.Decrypt(wrapped, algorithm, key, nonce, tag, nil)
}

// fixtures is what tests/unit/kit_documents.json holds.
type fixtures struct {
	About     string            `json:"about"`
	Keys      map[string][]byte `json:"keys"`
	Documents []fixture         `json:"documents"`
}

const about = "Documents in the scheme dapr.io/enc/v1 that github.com/dapr/kit v0.18.3 made (tests/node/go_crypto fixtures); " +
	"bytes are in base64; byte number i of a document's content is 7i mod 251"

type fixture struct {
	Key       string `json:"key"`
	Algorithm string `json:"algorithm"`
	Cipher    string `json:"cipher"`
	Size      int    `json:"size"`
	Document  []byte `json:"document"`
}

// fixtures are small for every combination; one has a second segment.
func (folder keyring) fixtures() error {
	found := fixtures{About: about, Keys: map[string][]byte{}}
	for _, wrapping := range []fixture{{Key: "rsa.pem", Algorithm: "RSA-OAEP-256"}, {Key: "aes", Algorithm: "A256KW"}} {
		raw, err := os.ReadFile(filepath.Join(string(folder), wrapping.Key))
		if err != nil {
			return err
		}
		found.Keys[wrapping.Key] = raw
		for _, cipher := range []string{string(enc.CipherAESGCM), string(enc.CipherChaCha20Poly1305)} {
			sizes := []int{0, 1, 1000}
			if wrapping.Key == "aes" && cipher == string(enc.CipherAESGCM) {
				sizes = append(sizes, enc.SegmentSize+1)
			}
			for _, size := range sizes {
				one := fixture{Key: wrapping.Key, Algorithm: wrapping.Algorithm, Cipher: cipher, Size: size}
				stream, err := folder.encrypt(bytes.NewReader(content(size)), one.Key, one.Algorithm, cipher, "")
				if err != nil {
					return err
				}
				if one.Document, err = io.ReadAll(stream); err != nil {
					return err
				}
				found.Documents = append(found.Documents, one)
			}
		}
	}
	lines := json.NewEncoder(os.Stdout)
	lines.SetIndent("", "  ")
	return lines.Encode(found)
}

func content(size int) []byte {
	out := make([]byte, size)
	for i := range out {
		out[i] = byte(7 * i % 251)
	}
	return out
}
