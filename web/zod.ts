import { config } from "zod";

// Imported first: the page's content security policy forbids the compiling of schemas that zod tries otherwise.
config({ jitless: true });
